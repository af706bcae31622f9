"""The early check of a request: a courtesy to its caller, without locks. The quota stage decides, by the same rules.

The order of the rules and their codes are those of the quota stage: job_cancelled, organization_not_found,
team_not_found, subscription_required, trust_too_low, quota_exceeded.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from infra.problems import Problem

# Clients and their libraries sleep as long as `Retry-After` says: for weeks, if it were the time until the next month.
_LONGEST_RETRY_AFTER_S = 3600


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a request's organization and team when it arrives.

    Attributes:
        withdrawn: why the organization cancelled the very job before it asked for it, by the ID that follows from its
            idempotency key; None: it has not.
        team_exists: the team is there and belongs to the organization.
        plan, status: of the subscription; None when there is none.
        used: units of this month's quota that are reserved or charged.
    """

    organization_exists: bool
    team_exists: bool
    trust_score: float
    plan: str | None
    status: str | None
    monthly_quota: int
    used: int
    withdrawn: str | None = None


def period_of(moment: datetime) -> str:
    """Return the quota period of a moment: its UTC month, as "2031-04"."""
    return moment.astimezone(UTC).strftime("%Y-%m")


def refusal(standing: Standing, *, trust_threshold: float, now: datetime) -> Problem | None:
    """Return the answer to a request that would be refused, or None."""
    if standing.withdrawn is not None:
        return Problem(
            409,
            "job_cancelled",
            f"the job of this Idempotency-Key was cancelled before it was asked for ({standing.withdrawn}); "
            "use a new key",
        )
    if not standing.organization_exists:
        return Problem(404, "organization_not_found", "the organization does not exist; check organization_id")
    if not standing.team_exists:
        return Problem(
            404, "team_not_found", "the organization has no such team; check team_id, or create the team first"
        )
    if standing.plan in (None, "free") or standing.status != "active":
        return Problem(
            402,
            "subscription_required",
            "the organization has no active paid subscription; subscribe to a paid plan, or renew it",
        )
    if standing.trust_score < trust_threshold:
        return Problem(403, "trust_too_low", "the organization's trust score is too low; ask support for a review")
    if standing.used >= standing.monthly_quota:
        return Problem(
            429,
            "quota_exceeded",
            f"the monthly quota is used up (0 of {standing.monthly_quota} left in {period_of(now)}); wait for the next "
            "month, or upgrade the plan",
            headers={"Retry-After": str(_retry_after(_next_period(now) - now))},
            reset_at=_next_period(now),
        )
    return None


def _next_period(now: datetime) -> datetime:
    """Return when the next quota period begins."""
    first = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


def _retry_after(left: timedelta) -> int:
    """Return the seconds until a repeat makes sense; the plan may be upgraded long before the period ends."""
    return min(int(left.total_seconds()) + 1, _LONGEST_RETRY_AFTER_S)
