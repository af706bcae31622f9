"""Ending the run of a job whose event is poison.

An event that kills its workers becomes a dead letter by the transport's hand: no stage lived to give the job up. The
run must end all the same, or its customer would wait, its quota stay reserved, and the reconciler resend it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from consumers.failures.letters import DeadLetter
from infra.clock import Clock
from infra.errors import InvalidEvent, Permanent
from infra.postgres import Database
from streams.deliveries import Record
from streams.events import JobAccepted, JobRequested, parse_event
from streams.outcomes import fail_run
from streams.redis.dead_letter import REASON_MAX_DELIVERIES
from streams.topics import GENERATION, QUOTA

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Poison:
    """Fails the runs that poison events belong to."""

    database: Database
    clock: Clock

    async def end_run(self, letter: DeadLetter) -> Sequence[Record]:
        """Return the JobFailed of the letter's run if it is poison to a stage that the job needs; else nothing.

        Repeating the call returns the same fact; a run that has ended otherwise stays as it is.

        Raises:
            DependencyDown: Postgres is away.
        """
        if letter.reason != REASON_MAX_DELIVERIES or letter.stage not in {QUOTA, GENERATION}:
            return ()
        try:
            event = parse_event(letter.event)
        except InvalidEvent:
            return ()
        if not isinstance(event, JobRequested | JobAccepted):
            return ()
        log.error("job.poisonous", job_id=str(event.job_id), run=event.run, stage=letter.stage, topic=letter.topic)
        why = (
            f"job {event.job_id} run {event.run}: its event was handed to the {letter.stage} stage {letter.attempts} "
            "times, and each time the worker died"
        )
        return await fail_run(self.database, self.clock, event, Permanent("poison_event", why))
