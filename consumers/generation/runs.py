"""The stage keeps a run's delivery and its attempt, or why it has none."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias
from uuid import UUID

from consumers.generation.prompt import Team
from infra.errors import Permanent, Postponed, TeamfitError
from infra.settings import Settings
from streams.jobs.admission import money
from streams.jobs.completion import Usage
from streams.jobs.events import JobAccepted, JobId
from streams.jobs.outcomes import RunOutcome

Run: TypeAlias = tuple[JobId, int]
# An accepted job, and the entry of the broker that carried it; see `Delivery.entry`.
Handover: TypeAlias = tuple[JobAccepted, str | None]


def attempt_time(settings: Settings) -> timedelta:
    """Return the time limit of an attempt. Its call has a limit, and Postgres and the broker have another."""
    return timedelta(seconds=settings.generation_timeout_s + settings.stage_timeout_s)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A started attempt. `team` is None when the organization has no such team."""

    job_id: JobId
    run: int
    number: int
    token: UUID
    team: Team | None = None

    @property
    def key(self) -> Run:
        """The run that this is an attempt at."""
        return self.job_id, self.run


@dataclass(frozen=True, slots=True)
class Saved:
    """A completed run: when it was saved and what it cost."""

    usage: Usage
    at: datetime


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that ended before without being completed. `error_code`: why it failed, if it did."""

    outcome: RunOutcome
    error_code: str | None


@dataclass(frozen=True, slots=True)
class Capped:
    """A run that is not begun, because its job has used this many tokens."""

    spent: int


@dataclass(frozen=True, slots=True)
class Unaffordable:
    """A run is not begun, because of its organization's budget.

    Attributes:
        verdict: the model has no price, the budget is used up, or calls under way hold what is left of it.
        budget, spent: of the month, in micro-units.
    """

    verdict: Literal["unpriced", "exceeded", "held"]
    budget: int
    spent: int


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt's call failed in this way."""

    attempt: Attempt
    code: str
    usage: Usage | None = None
    maybe_billed: bool = False


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A run cannot begin while another entry's attempt may be alive. The field says for how long that is."""

    wait: timedelta


@dataclass(frozen=True, slots=True)
class NotItsTurn:
    """A run waits to be released and is not begun; it comes again then."""


Begun: TypeAlias = Attempt | Saved | Ended | Capped | Unaffordable | UnderWay | NotItsTurn


# Calls under way hold what is left of the budget; most give some of it back within seconds.
_CALLS_END: Final = timedelta(seconds=2)


class Unpriced(Permanent):
    """The organization has a budget, and the model has no price. Another model may have one."""


def refusal(event: JobAccepted, model: str, why: Unaffordable) -> TeamfitError:
    """Return why the run does not begin."""
    whose = event.data.organization_id
    if why.verdict == "unpriced":
        return Unpriced(
            "llm_price_missing",
            f"organization {whose} has a budget, and model {model} has no price: set one with "
            f"`teamfit llm prices set {model} …`",
        )
    spent = f"{money(why.spent)} of {money(why.budget)} are spent in this month"
    if why.verdict == "exceeded":
        return Permanent(
            "budget_exceeded",
            f"organization {whose}: {spent}, and the rest is less than a call may cost; raise it with "
            f"`teamfit organization set {whose} --budget …`, and replay the job",
        )
    return Postponed(f"organization {whose}: {spent}, and calls under way hold the rest", delay=_CALLS_END)
