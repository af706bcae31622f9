"""The admission rules, as plain functions of what is known. Nothing here reads or writes anything.

The rules are asked in order and the first that refuses gives the code: `organization_not_found`, `team_not_found`,
`subscription_required`, `trust_too_low`, `quota_exceeded`. The codes are a contract with customers; the messages are
for people and may change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from infra.errors import Refused
from streams.jobs.events import JobId, JobRequested

LedgerState: TypeAlias = Literal["reserved", "charged", "released", "rejected"]


@dataclass(frozen=True, slots=True)
class Standing:
    """What the backend's tables say about a request's organization, team and subscription.

    Attributes:
        team_exists: the team is there and belongs to the organization.
        plan, status: of the subscription; None when there is none.
    """

    organization_exists: bool
    trust_score: float
    team_exists: bool
    plan: str | None
    status: str | None
    monthly_quota: int
    priority: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """A row of `quota_ledger`: what was decided about one run. `code` and `message` say why it was refused."""

    job_id: JobId
    run: int
    organization_id: str
    period: str
    state: LedgerState
    code: str | None
    message: str | None
    priority: bool
    decided_at: datetime


def period_of(moment: datetime) -> str:
    """Return the quota period of a moment: its UTC month, as "2031-04"."""
    return moment.astimezone(UTC).strftime("%Y-%m")


def ineligible(request: JobRequested, standing: Standing, *, trust_threshold: float) -> Refused | None:
    """Return why the request is refused whatever quota is left, or None."""
    organization, team = request.data.organization_id, request.data.team_id
    run = f"job {request.job_id} run {request.run}"
    if not standing.organization_exists:
        return Refused(
            "organization_not_found", f"{run}: organization {organization} does not exist; check organization_id"
        )
    if not standing.team_exists:
        return Refused(
            "team_not_found",
            f"{run}: organization {organization} has no team {team}; check team_id, or create the team first",
        )
    if standing.plan in (None, "free") or standing.status != "active":
        subscription = f"plan {standing.plan}, status {standing.status}" if standing.plan else "none"
        return Refused(
            "subscription_required",
            f"{run}: organization {organization} has no active paid subscription ({subscription}); subscribe to a paid "
            "plan, or renew it, then request again",
        )
    if standing.trust_score < trust_threshold:
        return Refused(
            "trust_too_low",
            f"{run}: organization {organization} has a trust score of {standing.trust_score:g}, below "
            f"{trust_threshold:g}; ask support for a review",
        )
    return None


def quota_exceeded(request: JobRequested, *, monthly_quota: int, period: str) -> Refused:
    """Return the refusal of a request that finds no unit left."""
    return Refused(
        "quota_exceeded",
        f"job {request.job_id} run {request.run}: organization {request.data.organization_id} has used its monthly "
        f"quota (0 of {monthly_quota} left in {period}); wait for the next month, or upgrade the plan",
    )


def decide(
    requests: Sequence[tuple[JobRequested, Standing]],
    *,
    used: Mapping[str, int],
    trust_threshold: float,
    at: datetime,
) -> list[Decision]:
    """Decide about new runs in the order given, which is the stream's: with k units left, the first k are admitted.

    Args:
        requests: each run once.
        used: units reserved or charged in the period of `at`, by organization; every eligible one must be there, and
            locked, because each admission here counts on nobody else taking that unit.
        trust_threshold: lowest score that may request.
        at: when, in the books.
    """
    taken = dict(used)
    period = period_of(at)
    decisions = []
    for request, standing in requests:
        organization_id = request.data.organization_id
        refused = ineligible(request, standing, trust_threshold=trust_threshold)
        if refused is None:
            if taken[organization_id] < standing.monthly_quota:
                taken[organization_id] += 1
            else:
                refused = quota_exceeded(request, monthly_quota=standing.monthly_quota, period=period)
        decisions.append(
            Decision(
                job_id=request.job_id,
                run=request.run,
                organization_id=organization_id,
                period=period,
                state="rejected" if refused else "reserved",
                code=refused.code if refused else None,
                message=str(refused) if refused else None,
                priority=standing.priority,
                decided_at=at,
            )
        )
    return decisions
