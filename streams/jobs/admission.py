"""The admission rules, as plain functions of what is known. Nothing here reads or writes anything.

The rules are asked in order and the first that refuses gives the code: `organization_not_found`, `team_not_found`,
`subscription_required`, `trust_too_low`, `quota_exceeded`, `budget_exceeded`. The codes are a contract with customers;
the messages are for people and may change. The quota stage decides by them, and the intake asks them before, as a
courtesy.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from infra.errors import Refused


@dataclass(frozen=True, slots=True)
class Standing:
    """The backend's tables give a request's organization, team and subscription.

    Attributes:
        organization_id, team_id: whom the request names.
        team_exists: the team is there and belongs to the organization.
        plan, status: of the subscription; None when there is none.
        budget: what its calls may cost in the month, in micro-units, if that is a hard limit; None: any sum.
        spent: what they have cost.
    """

    organization_id: str
    team_id: str
    organization_exists: bool
    trust_score: float
    team_exists: bool
    plan: str | None
    status: str | None
    monthly_quota: int
    priority: bool
    budget: int | None = None
    spent: int = 0


def money(micro_units: int) -> str:
    """Return a sum of money for people; all are of one currency."""
    return f"{micro_units / 1_000_000:.6f}"


def period_of(moment: datetime) -> str:
    """Return the quota period of a moment: its UTC month, as "2031-04"."""
    return moment.astimezone(UTC).strftime("%Y-%m")


def next_period(moment: datetime) -> datetime:
    """Return when the next quota period begins."""
    first = moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


def ineligible(standing: Standing, *, trust_threshold: float) -> Refused | None:
    """Return why a request is refused whatever quota is left, or None."""
    organization = f"organization {standing.organization_id}"
    if not standing.organization_exists:
        return Refused("organization_not_found", f"{organization} does not exist; check organization_id")
    if not standing.team_exists:
        return Refused(
            "team_not_found",
            f"{organization} has no team {standing.team_id}; check team_id, or create the team first",
        )
    if standing.plan in (None, "free") or standing.status != "active":
        subscription = f"plan {standing.plan}, status {standing.status}" if standing.plan else "none"
        return Refused(
            "subscription_required",
            f"{organization} has no active paid subscription ({subscription}); subscribe to a paid plan, or renew it, "
            "then request again",
        )
    if standing.trust_score < trust_threshold:
        return Refused(
            "trust_too_low",
            f"{organization} has a trust score of {standing.trust_score:g}, below {trust_threshold:g}; ask support for "
            "a review",
        )
    return None


def quota_exceeded(standing: Standing, *, at: datetime) -> Refused:
    """Return the refusal of a request when its period has no unit left."""
    return Refused(
        "quota_exceeded",
        f"organization {standing.organization_id} has used its monthly quota (0 of {standing.monthly_quota} left in "
        f"{period_of(at)}); wait for the next month, or upgrade the plan",
        # The plan may be upgraded long before the period ends.
        retry_after=min(next_period(at) - at, timedelta(hours=1)),
        reset_at=next_period(at),
    )


def budget_exceeded(standing: Standing, *, at: datetime) -> Refused | None:
    """Return the refusal of a request when its period's money is spent, or None.

    What calls under way hold is not counted: it may come back. Each call is looked at again before it is made.
    """
    if standing.budget is None or standing.spent < standing.budget:
        return None
    return Refused(
        "budget_exceeded",
        f"organization {standing.organization_id} has used its monthly budget ({money(standing.spent)} of "
        f"{money(standing.budget)} in {period_of(at)}); wait for the next month, or have the budget raised",
        # The budget may be raised long before the period ends.
        retry_after=min(next_period(at) - at, timedelta(hours=1)),
        reset_at=next_period(at),
    )


def refusal(standing: Standing, *, used: int, trust_threshold: float, at: datetime) -> Refused | None:
    """Return why a request would be refused, or None.

    Args:
        standing: of the request.
        used: units of the period that are reserved or charged.
        trust_threshold: lowest score that may request.
        at: when the job would begin.
    """
    refused = ineligible(standing, trust_threshold=trust_threshold)
    if refused is None and used >= standing.monthly_quota:
        return quota_exceeded(standing, at=at)
    return refused or budget_exceeded(standing, at=at)
