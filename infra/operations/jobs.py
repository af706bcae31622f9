"""One job as an operator sees it, and its end by an operator's word."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import aiosql

from infra.errors import Refused, TeamfitError
from infra.postgres import Connection, Database, plan_for_any_values
from producers.cancellation import Cancellation
from streams.jobs.cancellations import KnownJob, known_job
from streams.jobs.events import JobId
from streams.jobs.waits import Spent, WaitingFor, time_spent, waiting_for

_queries = aiosql.from_path(Path(__file__).with_name("jobs.sql"), "asyncpg")

T = TypeVar("T")


class UnknownJob(TeamfitError):
    """Nothing in the database knows the job."""


@dataclass(frozen=True, slots=True)
class JobIntake:
    """The request as the HTTP intake took it in."""

    organization_id: str
    team_id: str
    idempotency_key: str | None
    accepted_at: datetime


@dataclass(frozen=True, slots=True)
class JobStanding:
    """The job as its customer sees it."""

    status: str
    run: int
    organization_id: str | None
    team_id: str | None
    error_code: str | None
    error_message: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class JobFact:
    """One event of the archive; `says` is its code, reason or message."""

    run: int
    time: datetime
    type: str
    source: str | None
    traceparent: str | None
    says: str | None


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The way in which a run ended."""

    run: int
    outcome: str
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class QuotaUnit:
    """The unit of quota that a run holds, has used or was refused."""

    run: int
    state: str
    period: str
    code: str | None
    message: str | None
    priority: bool
    decided_at: datetime
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class LlmCall:
    """One call to the LLM that was made or may have been."""

    run: int
    attempt: int
    state: str
    error_code: str | None
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    maybe_billed: bool
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class GotActivity:
    """One activity that the customer got."""

    position: int | None
    run: int
    title: str


@dataclass(frozen=True, slots=True)
class LaterEvent:
    """An event that is published later, and why."""

    due_at: datetime
    topic: str
    reason: str


@dataclass(frozen=True, slots=True)
class JobFailure:
    """One failed event of the job, in short."""

    id: UUID
    stage: str
    reason: str
    error_type: str
    error_message: str
    state: str
    occurrences: int
    last_failed_at: datetime


@dataclass(frozen=True, slots=True)
class Reemission:
    """The times that the reconciler sent a run on. `why` says why it could not, if it could not."""

    run: int
    times: int
    last_at: datetime
    set_aside: str | None


@dataclass(frozen=True, slots=True)
class JobLife:
    """The record of one job at one moment, in the order of its steps.

    Attributes:
        has_more_facts: only the first facts were asked for, and there are more.
    """

    job_id: UUID
    request: JobIntake | None
    job: JobStanding | None
    facts: Sequence[JobFact]
    outcomes: Sequence[RunEnd]
    quota: Sequence[QuotaUnit]
    calls: Sequence[LlmCall]
    activities: Sequence[GotActivity]
    scheduled: Sequence[LaterEvent]
    failed: Sequence[JobFailure]
    reemissions: Sequence[Reemission]
    waiting_for: WaitingFor | None
    spent: Sequence[Spent]
    has_more_facts: bool = False


async def life_of(database: Database, job_id: UUID, *, most_facts: int | None = None) -> JobLife:
    """Return everything that is known of a job, with so many of its facts.

    Raises:
        UnknownJob: nothing is known of it.
        DependencyDown: Postgres is away.
    """
    # One moment for all: a job that moves meanwhile must not be shown half before and half after.
    async with database.transaction(snapshot=True) as connection:
        await plan_for_any_values(connection)
        request = await _queries.request(connection, job_id=job_id)
        job = await _queries.job(connection, job_id=job_id)
        asked = None if most_facts is None else most_facts + 1
        facts = [JobFact(**row) async for row in _queries.facts(connection, job_id=job_id, limit=asked)]
        life = JobLife(
            job_id=job_id,
            request=JobIntake(**request) if request else None,
            job=JobStanding(**job) if job else None,
            facts=facts[:most_facts],
            outcomes=await _rows(connection, _queries.outcomes, RunEnd, job_id),
            quota=await _rows(connection, _queries.quota, QuotaUnit, job_id),
            calls=await _rows(connection, _queries.calls, LlmCall, job_id),
            activities=await _rows(connection, _queries.activities, GotActivity, job_id),
            scheduled=await _rows(connection, _queries.scheduled, LaterEvent, job_id),
            failed=await _rows(connection, _queries.failed, JobFailure, job_id),
            reemissions=await _rows(connection, _queries.reemissions, Reemission, job_id),
            waiting_for=await waiting_for(connection, job_id, None),
            spent=await time_spent(connection, job_id),
            has_more_facts=most_facts is not None and len(facts) > most_facts,
        )
    if not any(getattr(life, field.name) for field in fields(life) if field.name != "job_id"):
        raise UnknownJob(
            f"job {job_id}: nothing is known of it. A request that came by client or XADD is known once it was read "
            "(`teamfit lag` says what waits); else check the ID and DATABASE_URL"
        )
    return life


async def known_jobs(database: Database, jobs: Sequence[UUID]) -> list[tuple[UUID, KnownJob]]:
    """Return each job's owner, its newest run, and how that ended."""
    async with database.transaction() as connection:
        return [(job, await known_job(connection, JobId(job))) for job in jobs]


def may_be_cancelled(known: KnownJob) -> bool:
    """Return true of a job that is known and has not ended."""
    return known.is_known and known.ended is None


@dataclass(frozen=True, slots=True)
class CancelResult:
    """The result for one job. `why` is for people, and only where the job is not cancelled."""

    job_id: UUID
    cancelled: bool
    run: int | None = None
    code: str | None = None
    why: str | None = None


async def cancel(cancellation: Cancellation, job_id: UUID, *, because: str) -> CancelResult:
    """Cancel a job of any organization, as its customer could. A repeat returns the same.

    Raises:
        DependencyDown: Postgres is away; whether the job is cancelled is unknown, so ask again.
    """
    try:
        end = await cancellation.cancel(JobId(job_id), organization_id=None, reason=because)
    except Refused as refused:
        why = str(refused)
        if refused.code == "job_not_found":
            why = "not known; a request that waits in the stream is not (see `teamfit lag`), else check the ID"
        return CancelResult(job_id, cancelled=False, code=refused.code, why=why)
    return CancelResult(job_id, cancelled=True, run=end.run)


# The query is aiosql's, which has no types.
async def _rows(connection: Connection, query: Any, of: type[T], job_id: UUID) -> list[T]:  # noqa: ANN401
    return [of(**row) async for row in query(connection, job_id=job_id)]
