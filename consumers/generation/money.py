"""A run that no budget has room for is refused, or comes again soon."""

from datetime import timedelta
from typing import Final

from consumers.generation.runs import Unaffordable
from infra.errors import Permanent, Postponed, TeamfitError
from streams.jobs.admission import money
from streams.jobs.events import JobAccepted

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
