"""Accepting a request: recorded in Postgres and published to the broker, in one transaction.

Publishing comes before the commit, so a broker that refuses leaves nothing recorded. When it is unknown whether the
broker has the event, the record is kept and the same event is published again a little later: a repeat changes nothing,
because job and event keep their IDs. When the commit fails after publishing, the job runs, and its caller, who heard an
error, finds it again with the same idempotency key. A request for later (`run_at`) is not published but kept in
`scheduled_events`, in the same transaction, and published when it is due; accepting it needs no broker.
Decision 7 has what happens if the process dies after each step, and why requests take turns.
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import aiosql
import structlog

from infra.clock import Clock
from infra.errors import Refused, RefusesWrites
from infra.postgres import Connection, Database
from producers.turns import Turns
from streams.delivery.interfaces import Publisher
from streams.delivery.publisher import BrokerDown
from streams.delivery.scheduled import keep
from streams.delivery.traces import Trace
from streams.jobs.admission import Standing, period_of, refusal
from streams.jobs.events import JobId, JobRequested, Requested, RunAtTooFar, due_at
from streams.jobs.facts import job_requested
from streams.jobs.intake_limits import too_many_waiting
from streams.jobs.job_ids import digest_of, job_id_for
from streams.jobs.topics import JOB_REQUESTS, record

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("intake.sql"), "asyncpg")

# Long enough for a broker that stalled to be back, short enough that a client who polls does not notice.
_PUBLISH_AGAIN = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Intake:
    """Takes requests in.

    Attributes:
        trust_threshold: lowest trust score that may request.
    """

    database: Database
    publisher: Publisher
    clock: Clock
    trust_threshold: float
    turns: Turns

    async def accept(self, request: Requested, *, idempotency_key: str | None, trace: Trace) -> JobId:
        """Record and publish a request; return its job. With a key, a repeat returns the first job and does nothing.

        All events of the job carry the caller's trace; of repeats, the first one's.

        Raises:
            Refused: the request would be refused, the key was used for another request, or too many came at once.
            DependencyDown: the broker or Postgres is away. If the broker, nothing is recorded.
        """
        job_id = job_id_for(request.organization_id, idempotency_key)
        event = job_requested(
            job_id=job_id,
            organization_id=request.organization_id,
            team_id=request.team_id,
            requirements=request.requirements,
            at=self.clock.now(),
            run_at=request.run_at,
            idempotency_key=idempotency_key,
            trace=trace,
        )
        async with self.turns.one(), self.database.transaction() as connection:
            if idempotency_key is not None and (known := await _repeated(connection, event)):
                return known
            await self._check(connection, event)
            if await _record(connection, event):
                await self._publish(connection, event)
                log.info("request.accepted", job_id=str(job_id), organization_id=request.organization_id)
                return job_id
            # The insert waited for a request with the same key; only that one can be in its way.
            known = await _repeated(connection, event)
            if known is None:
                raise RuntimeError(f"job {job_id}: it is recorded, and not under its idempotency key")
            return known

    async def probe(self) -> None:
        """Ask Postgres whether a request could be recorded now. Nothing is written.

        Raises:
            RefusesWrites: it answers, but takes no writes from us.
            DependencyDown: it is away.
        """
        async with self.database.transaction() as connection:
            row = await _queries.can_record(connection)
        for obstacle in ("standby", "read_only", "not_migrated", "not_permitted"):
            if row[obstacle]:
                raise RefusesWrites("postgres", f"takes no writes: {obstacle.replace('_', ' ')}")

    async def _check(self, connection: Connection, event: JobRequested) -> None:
        now, request = self.clock.now(), event.data
        try:
            due = due_at(request, now)
        except RunAtTooFar as error:
            raise Refused(error.code, str(error)) from error
        # A delayed job takes its unit from the month in which it begins.
        begins = due or now
        row = await _queries.standing(
            connection,
            job_id=event.job_id,
            organization_id=request.organization_id,
            team_id=request.team_id,
            period=period_of(begins),
        )
        columns = dict(row)
        used, room, withdrawn, first_wish = (columns.pop(name) for name in ("used", "room", "withdrawn", "first_wish"))
        if withdrawn is not None:
            raise Refused(
                "job_cancelled",
                f"the job of this Idempotency-Key was cancelled before it was asked for ({withdrawn}); use a new key",
            )
        if first_wish not in {None, digest_of(request)}:
            raise _key_reused()
        refused = refusal(Standing(**columns), used=used, trust_threshold=self.trust_threshold, at=begins)
        if refused is None and due is None and room <= 0:
            refused = too_many_waiting(request.organization_id)
        if refused is not None:
            raise refused

    async def _publish(self, connection: Connection, event: JobRequested) -> None:
        one = record(JOB_REQUESTS, event)
        now = self.clock.now()
        due = due_at(event.data, now)
        if due is not None:
            await keep(connection, one, now=now, due_at=due, reason="run_at")
            return
        try:
            await self.publisher.publish([one])
        except BrokerDown as error:
            if not error.maybe_written:
                raise
            log.warning("request.publish_unconfirmed", job_id=str(event.job_id), why=str(error))
            await keep(connection, one, now=now, due_at=now + _PUBLISH_AGAIN, reason="publish unconfirmed")


async def _repeated(connection: Connection, event: JobRequested) -> JobId | None:
    """Return the job that was accepted under this key before. Raises Refused when that was for something else.

    It is found by the key and not by its ID: what an older version accepted has an ID that was made in another way.
    """
    row = await _queries.recorded(
        connection, organization_id=event.data.organization_id, idempotency_key=event.idempotencykey
    )
    if row is None:
        return None
    if JobRequested.model_validate(row["event"]).data != event.data:
        raise _key_reused()
    return JobId(row["job_id"])


def _key_reused() -> Refused:
    return Refused(
        "idempotency_key_reused",
        "this Idempotency-Key was used for a request with another body; use a new key for a new request",
    )


async def _record(connection: Connection, event: JobRequested) -> bool:
    recorded = await _queries.record(
        connection,
        job_id=event.job_id,
        organization_id=event.data.organization_id,
        team_id=event.data.team_id,
        idempotency_key=event.idempotencykey,
        event=event.model_dump(mode="json", exclude_none=True),
    )
    return recorded is not None
