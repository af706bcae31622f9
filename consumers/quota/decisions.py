"""Plain functions decide about new runs in the order of the stream."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from infra.errors import Refused
from streams.jobs.admission import Standing, budget_exceeded, ineligible, period_of, quota_exceeded
from streams.jobs.events import JobId, JobRequested

LedgerState: TypeAlias = Literal["reserved", "charged", "released", "rejected"]


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


def decide(
    requests: Sequence[tuple[JobRequested, Standing]],
    *,
    used: Mapping[str, int],
    beyond: Mapping[tuple[JobId, int], Refused] | None = None,
    trust_threshold: float,
    at: datetime,
) -> list[Decision]:
    """Decide about new runs in the given order. It is the stream's: with k units left, the first k are admitted.

    Args:
        requests: each run once.
        used: units reserved or charged in the period of `at`, by organization; every eligible one must be there, and
            locked, because each admission here counts on that unit not being taken by another.
        beyond: which runs of them are beyond a limit of the intake, and why.
        trust_threshold: lowest score that may request.
        at: when, in the books.
    """
    taken = dict(used)
    period = period_of(at)
    decisions = []
    for request, standing in requests:
        organization_id = request.data.organization_id
        refused = ineligible(standing, trust_threshold=trust_threshold)
        if refused is None and beyond is not None:
            refused = beyond.get((request.job_id, request.run))
        if refused is None and taken[organization_id] >= standing.monthly_quota:
            refused = quota_exceeded(standing, at=at)
        refused = refused or budget_exceeded(standing, at=at)
        if refused is None:
            taken[organization_id] += 1
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
