"""Keeping what the transport buries, and ending the jobs that it was about.

An event that kills its workers becomes a dead letter by the transport's hand: no stage lived to give the job up. The
run must end all the same, or its customer would wait, its quota stay reserved, and the reconciler resend it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import aiosql
import structlog

from infra.clock import Clock
from infra.errors import DependencyDown, InvalidEvent, Permanent
from infra.postgres import Database
from infra.settings import Settings
from streams.delivery.batching import Batcher
from streams.delivery.deliveries import Delivery, Hold, Record
from streams.delivery.failed_events import FailedEvents
from streams.delivery.letters import FailedEvent
from streams.delivery.policy import RetryPolicy
from streams.jobs.events import JobAccepted, JobRequested, parse_event
from streams.jobs.outcomes import fail_run
from streams.jobs.ownership import Ownership
from streams.jobs.stages import RUN_TOPICS
from streams.redis.dead_letter import REASON_MAX_DELIVERIES

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("queries.sql"), "asyncpg")

_TIMEOUT = timedelta(seconds=30)


@dataclass(slots=True)
class Poison:
    """Fails the runs that poison events belong to."""

    database: Database
    clock: Clock
    ownership: Ownership = field(init=False)

    def __post_init__(self) -> None:
        self.ownership = Ownership(self.database, timeout=_TIMEOUT)

    async def end_run(self, letter: FailedEvent) -> Sequence[Record]:
        """Return the JobFailed of a poison letter's run. Nothing is returned if the job does not need the stage.

        Repeating the call returns the same fact; a run that has ended otherwise stays as it is.

        Raises:
            DependencyDown: Postgres is away.
        """
        if letter.reason != REASON_MAX_DELIVERIES or letter.stage not in RUN_TOPICS:
            return ()
        try:
            event = parse_event(letter.event, _headers(letter), written_at=letter.failed_at or self.clock.now())
        except InvalidEvent:
            return ()
        if not isinstance(event, JobRequested | JobAccepted) or not await self._is_genuine(event):
            return ()
        log.error("job.poisoned", job_id=str(event.job_id), run=event.run, stage=letter.stage, topic=letter.topic)
        why = (
            f"job {event.job_id} run {event.run}: its event was handed to the {letter.stage} stage {letter.attempts} "
            "times, and each time the worker died"
        )
        return await fail_run(self.database, self.clock, event, Permanent("poison_event", why))

    async def _is_genuine(self, event: JobRequested | JobAccepted) -> bool:
        """Whether the letter's event is about a job of its organization and asks for what is on record for that job.

        A letter is written by whoever may write letters, who need not know the wish.
        """
        try:
            evidence = await self.ownership.check(event)
        except InvalidEvent:
            return False
        async with self.database.transaction() as connection:
            wish = await _queries.recorded_wish(
                connection, job_id=event.job_id, organization_id=event.data.organization_id
            )
        if wish is None:
            # It comes after many deliveries, so what quota has entered is archived, or will be found by the reconciler.
            return evidence.latest_run == 0 or evidence.outcome == "failed"
        return (wish["team_id"], wish["requirements"]) == (event.data.team_id, event.data.requirements)


def _headers(letter: FailedEvent) -> Mapping[str, bytes]:
    return {name: value.encode() for name, value in letter.headers.items() if isinstance(value, str)}


class Letters:
    """Takes what comes on `dead-letters`."""

    def __init__(self, database: Database, clock: Clock, settings: Settings) -> None:
        self._failed_events = FailedEvents(database, clock)
        self._kept: Batcher[FailedEvent, None] = Batcher(
            self._failed_events.keep, max_size=settings.batch_size, timeout_s=settings.stage_timeout_s
        )
        self._poison = Poison(database, clock)

    async def handle(self, letter: FailedEvent, _delivery: Delivery) -> Sequence[Record]:
        """Keep a letter in `failed_events`; return the run's failure if it is poison.

        Raises:
            DependencyDown: Postgres is away.
        """
        try:
            await self._kept.submit(letter)
        except (DependencyDown, TimeoutError):
            raise
        except Exception:  # noqa: BLE001 - whatever the batch could not describe is kept alone, its bytes at the least
            await self._failed_events.keep_one(letter)
        return await self._poison.end_run(letter)


class HoldPolicy(RetryPolicy):
    """The policy of the last stop: whatever fails, the stage holds and says why.

    Giving a dead letter up would write it to `dead-letters`, from where it came; losing it is not allowed. Nothing that
    a letter holds should make this stage fail (see `letters`), so a failure is an outage, or a bug in this stage that a
    deploy mends.
    """

    def outcome(self, error: Exception, delivery: Delivery, *, suspected: bool = False) -> Hold:  # noqa: ARG002
        """Return a hold, always."""
        if isinstance(error, DependencyDown):
            return Hold(error)
        down = DependencyDown("bug", f"a letter of {delivery.topic} was not kept: {type(error).__name__}: {error}")
        down.__cause__ = error
        return Hold(down)
