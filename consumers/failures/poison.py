"""Ending the run of a job whose event is poison.

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
from infra.errors import InvalidEvent, Permanent
from infra.postgres import Database
from streams.delivery.deliveries import Record
from streams.delivery.letters import FailedEvent
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
