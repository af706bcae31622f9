"""Events of one job, for tests that tell its story. Times are minutes after the story begins."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias
from uuid import UUID

from streams.jobs.events import (
    Cancelled,
    Completed,
    Failed,
    JobCancelled,
    JobCompleted,
    JobEvent,
    JobFailed,
    JobId,
    JobProgressed,
    JobRejected,
    JobRequested,
    JobStarted,
    Progressed,
    Rejected,
    Requested,
    Started,
    kind_of,
)
from tests.conftest import Pool

JOB = JobId(UUID("0f9b9ad4-6f2c-4b0e-9a51-0d2d8e1c7a10"))
START = datetime(2031, 4, 1, tzinfo=UTC)


def at(minute: int) -> datetime:
    """Return a moment: minutes after the story begins."""
    return START + timedelta(minutes=minute)


def requested(
    minute: int = 0, *, job: JobId = JOB, run: int = 1, organization: str = "acme", team: str = "t1"
) -> JobRequested:
    """A team asks."""
    data = Requested(organization_id=organization, team_id=team, requirements="puzzles")
    return JobRequested(id=f"requested-{run}", subject=job, time=at(minute), run=run, data=data)


def started(
    minute: int = 1, *, job: JobId = JOB, run: int = 1, attempt: int = 1, organization: str = "acme"
) -> JobStarted:
    """An attempt begins."""
    data = Started(organization_id=organization, attempt=attempt)
    return JobStarted(id=f"started-{run}-{attempt}", subject=job, time=at(minute), run=run, data=data)


def progressed(minute: int = 2, *, job: JobId = JOB, run: int = 1, organization: str = "acme") -> JobProgressed:
    """A step further."""
    data = Progressed(organization_id=organization, step="asking")
    return JobProgressed(id=f"progressed-{run}", subject=job, time=at(minute), run=run, data=data)


def completed(minute: int = 3, *, job: JobId = JOB, run: int = 1, organization: str = "acme") -> JobCompleted:
    """The run ends well."""
    data = Completed(organization_id=organization, model="m", prompt_tokens=1, completion_tokens=1)
    return JobCompleted(id=f"completed-{run}", subject=job, time=at(minute), run=run, data=data)


def failed(minute: int = 3, *, job: JobId = JOB, run: int = 1, organization: str = "acme") -> JobFailed:
    """The run is given up."""
    data = Failed(organization_id=organization, code="llm_refusal", error_message="it would not")
    return JobFailed(id=f"failed-{run}", subject=job, time=at(minute), run=run, data=data)


def rejected(minute: int = 3, *, job: JobId = JOB, run: int = 1, organization: str = "acme") -> JobRejected:
    """The run is refused."""
    data = Rejected(organization_id=organization, code="quota_exceeded", message="none left")
    return JobRejected(id=f"rejected-{run}", subject=job, time=at(minute), run=run, data=data)


def cancelled(minute: int = 3, *, job: JobId = JOB, run: int = 1, organization: str = "acme") -> JobCancelled:
    """The run is withdrawn."""
    data = Cancelled(organization_id=organization, reason="no longer wanted")
    return JobCancelled(id=f"cancelled-{run}", subject=job, time=at(minute), run=run, data=data)


End: TypeAlias = Callable[..., JobEvent]
ENDS: Sequence[End] = (completed, failed, rejected, cancelled)


async def enter(pool: Pool, *events: JobEvent) -> None:
    """Enter the events' runs into the ledger, as quota does before it publishes."""
    for event in events:
        await pool.execute(
            "INSERT INTO quota_ledger (job_id, run, organization_id, period, state, decided_at) "
            "VALUES ($1, $2, $3, '2031-04', 'reserved', now()) ON CONFLICT DO NOTHING",
            *(event.job_id, event.run, event.data.organization_id),
        )


async def decide(pool: Pool, *facts: JobEvent) -> None:
    """Decide that runs end as these facts say, as the stages do before they publish."""
    for fact in facts:
        await pool.execute(
            "INSERT INTO job_outcomes (job_id, run, outcome) VALUES ($1, $2, $3)", fact.job_id, fact.run, kind_of(fact)
        )
