"""An HTTP request or an operator's command cancels a job. Postgres decides; the stream is told.

The decision commits first; from then on the job is cancelled, whether any worker or the broker is there or not. The
fact is published next. If the broker is away it is kept in `scheduled_events`, and its caller hears of success all the
same. Dying in between, or Postgres going away just then, leaves the decision without its fact: the reconciler, or a
repeat of the call, publishes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from infra import telemetry
from infra.actions import Act, acting
from infra.clock import Clock
from infra.errors import DependencyDown, JobNotFound, Refused
from infra.postgres import Connection, Database
from streams.delivery.deliveries import Record
from streams.delivery.interfaces import Publisher
from streams.delivery.publisher import BrokerDown
from streams.delivery.scheduled import keep
from streams.delivery.traces import NO_TRACE, Trace
from streams.jobs.cancellations import End, cancel_run, known_job
from streams.jobs.events import JobId
from streams.jobs.invalid_requests import invalid_request
from streams.jobs.outcomes import RunOutcome

log = structlog.get_logger(__name__)

# Long enough for a broker that stalled to be back, short enough that a client who polls does not notice.
_PUBLISH_AGAIN = timedelta(seconds=5)

_IN_WORDS: dict[RunOutcome, str] = {"completed": "has completed", "failed": "has failed", "rejected": "was rejected"}


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Cancels jobs."""

    database: Database
    publisher: Publisher
    clock: Clock

    async def cancel(self, job_id: JobId, *, organization_id: str | None, reason: str, trace: Trace = NO_TRACE) -> End:
        """Cancel the newest run of an organization's job, and return its end. A repeat returns the same.

        Args:
            job_id: the job.
            organization_id: whose it must be; None: an operator asks, and it may be anybody's.
            reason: why, for people.
            trace: of whoever asks; the fact carries it.

        Raises:
            JobNotFound: the organization has no such job.
            Refused: the run ended in another way before.
            DependencyDown: Postgres is away; whether the job is cancelled is unknown, so ask again.
        """
        act = Act("job.cancel", f"job {job_id}", reason)
        by_operator = organization_id is None
        async with acting(self.database, act) if by_operator else self.database.transaction() as connection:
            known = await known_job(connection, job_id)
            owner = known.organization_id
            if owner is None and organization_id is not None:
                await _refuse_invalid(connection, job_id, organization_id)
            if owner is None or organization_id not in {None, owner}:
                raise JobNotFound(job_id)
            if known.older_status is not None:
                message = f"job {job_id}: status {known.older_status}; older than the pipeline, which cannot cancel it"
                raise Refused("job_not_cancellable", message)
            end = await cancel_run(
                connection,
                job_id=job_id,
                run=known.run,
                organization_id=owner,
                reason=reason,
                trace=trace,
                at=self.clock.now(),
            )
            if end.fact is None:
                message = f"job {job_id}: run {end.run} {_IN_WORDS[end.outcome]}; it cannot be cancelled any more"
                raise Refused(f"job_{end.outcome}", message)
            act.effects = {"organization": owner, "run": end.run}
        if known.outcome is None:
            telemetry.JOBS.labels("cancelled").inc()
            log.info("job.cancelled", job_id=str(job_id), run=end.run, organization_id=owner)
        await self.tell([end.fact])
        return end

    async def tell_of_many(self, facts: Sequence[Record], **of: str) -> None:
        """Count, log and publish that many jobs are cancelled, once that is committed."""
        if facts:
            telemetry.JOBS.labels("cancelled").inc(len(facts))
            log.info("job.cancelled", jobs=len(facts), **of)
            await self.tell(facts)

    async def tell(self, facts: Sequence[Record]) -> None:
        """Publish the facts of committed decisions. What the broker does not take is published later."""
        try:
            await self.publisher.publish(facts)
        except BrokerDown as error:
            keys = [(fact.key or b"").decode() for fact in facts]
            log.warning("job.cancel_publish_unconfirmed", keys=keys, why=str(error))
            try:
                async with self.database.transaction() as connection:
                    now = self.clock.now()
                    due = now + _PUBLISH_AGAIN
                    for fact in facts:
                        await keep(connection, fact, now=now, due_at=due, reason="publish unconfirmed")
            except DependencyDown as down:
                # The jobs are cancelled, which is what was asked for; the reconciler tells the others.
                log.warning("job.cancel_fact_not_kept", keys=keys, why=str(down))


async def _refuse_invalid(connection: Connection, job_id: JobId, organization_id: str) -> None:
    if (invalid := await invalid_request(connection, job_id, organization_id)) is not None:
        why = f"job {job_id}: its request is no valid event ({invalid.message}), so there is nothing to cancel"
        raise Refused("job_failed", why)
