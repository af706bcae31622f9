"""This module cancels jobs by event, for services that write into the stream.

`POST /api/jobs/{id}/cancel` does so over HTTP.

A request and its cancellation travel on one topic but are not handled in order: many deliveries are handled at once,
and either may be tried again. So the cancellation of a job that is not known yet is decided all the same, and the
request that comes later finds its run ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from infra import telemetry
from infra.clock import Clock
from infra.errors import InvalidEvent
from infra.postgres import Database
from streams.delivery.deliveries import Record
from streams.delivery.traces import Trace
from streams.jobs.cancellations import cancel_run, known_job
from streams.jobs.events import JobCancelRequested

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Cancellations:
    """Cancels jobs."""

    database: Database
    clock: Clock

    async def cancel(self, event: JobCancelRequested) -> Sequence[Record]:
        """Cancel a job's newest run and return the JobCancelled. Nothing is returned if it ended in another way.

        A repeat returns the same fact again.

        Raises:
            InvalidEvent: the job is another organization's, or older than the pipeline.
            DependencyDown: Postgres is away.
        """
        job_id, owner = event.job_id, event.data.organization_id
        async with self.database.transaction() as connection:
            known = await known_job(connection, job_id, run=event.run)
            if known.organization_id not in {None, owner}:
                raise InvalidEvent(f"subject: job {job_id} belongs to another organization than {owner}")
            if known.older_status is not None:
                raise InvalidEvent(f"subject: job {job_id} is older than the pipeline, which cannot cancel it")
            end = await cancel_run(
                connection,
                job_id=job_id,
                run=known.run,
                organization_id=owner,
                reason=event.data.reason,
                trace=Trace(event.traceparent, event.tracestate),
                at=self.clock.now(),
            )
        log.info("job.cancel_requested", job_id=str(job_id), run=end.run, outcome=end.outcome)
        if end.outcome == "cancelled" and known.outcome is None:
            telemetry.JOBS.labels("cancelled").inc()
        return () if end.fact is None else (end.fact,)
