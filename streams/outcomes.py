"""Each run of a job ends in exactly one way, decided by whoever first writes its row in `job_outcomes`.

Completing, failing, rejecting and cancelling a run all pass through here, inside the transaction of their effect, so
two stages can never both end a run: the second one reads what the first has decided.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import aiosql

from infra.clock import Clock
from infra.postgres import Connection, Database
from streams.deliveries import Record, record
from streams.events import Failed, JobAccepted, JobEvent, JobFailed, JobId, JobRequested, fact_id
from streams.policy import error_code
from streams.topics import JOB_EVENTS

RunOutcome: TypeAlias = Literal["completed", "failed", "rejected", "cancelled"]

_queries = aiosql.from_path(Path(__file__).with_name("outcomes.sql"), "asyncpg")


async def decide_outcome(connection: Connection, job_id: JobId, run: int, outcome: RunOutcome) -> RunOutcome:
    """Decide how a run ends, unless it is decided; return the decision that stands.

    Two transactions that decide the same run wait for each other. Repeating the call changes nothing.
    """
    await _queries.decide(connection, job_ids=[job_id], runs=[run], outcome=outcome)
    decided: RunOutcome = await _queries.outcome_of(connection, job_id=job_id, run=run)
    return decided


async def reject_runs(connection: Connection, runs: Sequence[tuple[JobId, int]]) -> None:
    """Decide that these runs were rejected, unless they are decided."""
    await _queries.decide(
        connection, job_ids=[job_id for job_id, _ in runs], runs=[run for _, run in runs], outcome="rejected"
    )


async def complete_runs(connection: Connection, runs: Sequence[tuple[JobId, int]]) -> set[tuple[JobId, int]]:
    """Decide that these runs were completed, unless they are decided; return those whose outcome is `completed`."""
    rows = _queries.complete(connection, job_ids=[job_id for job_id, _ in runs], runs=[run for _, run in runs])
    return {(JobId(row["job_id"]), row["run"]) async for row in rows if row["outcome"] == "completed"}


async def fail_run(
    database: Database, clock: Clock, event: JobRequested | JobAccepted, error: Exception
) -> Sequence[Record]:
    """Decide that a run failed and return the JobFailed fact, or nothing if the run had ended in another way.

    Raises:
        DependencyDown: Postgres is away.
    """
    async with database.transaction() as connection:
        if await decide_outcome(connection, event.job_id, event.run, "failed") != "failed":
            return ()
    return (record(JOB_EVENTS, job_failed(event, error, clock)),)


def job_failed(event: JobEvent, error: Exception, clock: Clock) -> JobFailed:
    """Build the fact that a run failed. A bug's message may hold private data, so the customer sees only its class."""
    code = error_code(error)
    message = f"an internal error ended this job ({type(error).__name__})" if code == "internal_error" else str(error)
    return JobFailed(
        id=fact_id(event.job_id, event.run, "failed"),
        subject=event.job_id,
        time=clock.now(),
        run=event.run,
        traceparent=event.traceparent,
        data=Failed(
            organization_id=event.data.organization_id,
            code=code,
            error_message=message or code,
        ),
    )
