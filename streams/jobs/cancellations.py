"""Cancelling ends a job's newest run as `cancelled`, unless it has ended already.

The decision is a row in `job_outcomes` and the JobCancelled fact in it, and nothing else. It needs no worker. Whoever
is about to work on the run reads that row first (quota before it reserves, generation before it calls the LLM and again
before it saves), so the run stops at the next of these points. Quota gives its unit back and the projection shows the
status when they read the fact, which the caller publishes once the decision is committed, never before: a fact of a
decision that was rolled back would be a second end of the run.

Dying between commit and publishing leaves a run that has ended and looks alive: the reconciler publishes its fact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import aiosql

from infra.postgres import Connection
from streams.delivery.deliveries import Record
from streams.delivery.scheduled import hasten_keys
from streams.delivery.traces import NO_TRACE, Trace
from streams.jobs.events import Cancelled, JobCancelled, JobId
from streams.jobs.facts import fact
from streams.jobs.outcomes import Decided, RunOutcome, decide_outcome, end_runs, terminal_fact
from streams.jobs.topics import JOB_REQUESTS

_queries = aiosql.from_path(Path(__file__).with_name("cancellations.sql"), "asyncpg")


@dataclass(frozen=True, slots=True)
class KnownJob:
    """A job's current run and outcome, as far as they are known, stand here.

    Attributes:
        run: its newest run.
        outcome: how that run ended, or None.
        organization_id: whose it is; None before its first request.
        older_status: what `customization_jobs` shows of a job that is older than the pipeline; it cannot be cancelled.
    """

    run: int
    outcome: RunOutcome | None
    organization_id: str | None
    older_status: str | None

    @property
    def is_known(self) -> bool:
        """Return false if nothing of it was read; its request may wait in the stream."""
        return self.organization_id is not None or self.ended is not None

    @property
    def ended(self) -> str | None:
        """Return how it ended, or the status that an older job has."""
        return self.outcome or self.older_status


@dataclass(frozen=True, slots=True)
class End:
    """A run ended as `cancelled`, or earlier in another way. The fact that says so comes with it."""

    run: int
    outcome: RunOutcome
    fact: Record | None


async def known_job(connection: Connection, job_id: JobId, *, run: int = 1) -> KnownJob:
    """Return what is known of a job; its newest run is at least `run`."""
    row = await _queries.known_job(connection, job_id=job_id, run=run)
    return KnownJob(**row)


async def cancel_run(
    connection: Connection,
    *,
    job_id: JobId,
    run: int,
    organization_id: str,
    reason: str,
    at: datetime,
    trace: Trace = NO_TRACE,
) -> End:
    """Decide that a run is cancelled, unless it is decided; return how it ended. A repeat returns the first fact.

    Args:
        connection: inside a transaction; this neither commits nor publishes.
        job_id: the job.
        run: its run.
        organization_id: whose job it is.
        reason: why, for people.
        at: when, for the fact.
        trace: of whoever asked, for the fact.
    """
    told = cancelled_fact(job_id, run, organization_id, reason, at=at, trace=trace)
    outcome = await decide_outcome(connection, job_id, run, "cancelled", fact=told)
    if outcome == "cancelled":
        await _let_go(connection, [job_id], at=at)
    return End(run, outcome, await terminal_fact(connection, job_id, run) if outcome == "cancelled" else None)


async def cancel_runs(
    connection: Connection, facts: Sequence[JobCancelled], *, at: datetime
) -> Mapping[tuple[JobId, int], Decided]:
    """Decide that these runs are cancelled, unless they are decided; return what stands of each.

    Like `cancel_run` for each of them, in three statements however many they are.
    """
    decided = await end_runs(connection, facts, "cancelled")
    await _let_go(connection, [job_id for (job_id, _), end in decided.items() if end.outcome == "cancelled"], at=at)
    return decided


async def _let_go(connection: Connection, job_ids: Sequence[JobId], *, at: datetime) -> None:
    """Have requests that wait for their time go to the archive at once, where the quota stage drops them."""
    await hasten_keys(connection, [str(job_id).encode() for job_id in job_ids], topic=JOB_REQUESTS, now=at)


def cancelled_fact(
    job_id: JobId, run: int, organization_id: str, reason: str, *, at: datetime, trace: Trace = NO_TRACE
) -> JobCancelled:
    """Build the fact that a run is cancelled; `cancel_run` has its arguments."""
    return fact(
        JobCancelled, job_id, run, Cancelled(organization_id=organization_id, reason=reason), at=at, trace=trace
    )
