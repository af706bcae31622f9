"""A job's activities are told while its answer is still being written.

Nothing depends on these facts: what they tell is saved, and counts, only as three. So they are published beside the
call, are lost with the process or the broker, and hold no answer up.
"""

import asyncio
import time
from typing import Final

import structlog
from pydantic import ValidationError

from consumers.generation.runs import Attempt
from infra.clock import Clock
from infra.errors import DependencyDown
from streams.delivery.deliveries import Record
from streams.delivery.interfaces import Publisher
from streams.jobs.events import JobAccepted
from streams.jobs.facts import activity_written
from streams.jobs.topics import JOB_EVENTS, record

log = structlog.get_logger(__name__)

# Whoever has the answer within so long has not begun to wait, and the facts would only be more work for the stages.
WORTH_TELLING_S: Final = 2.0
# They go out before the job's end, unless the broker keeps them waiting.
_LAST_S: Final = 1.0


class Progress:
    """The activities of one attempt's answer, each told once."""

    def __init__(self, publisher: Publisher, event: JobAccepted, attempt: Attempt, clock: Clock) -> None:
        self._publisher = publisher
        self._event = event
        self._attempt = attempt
        self._clock = clock
        self._worth_at = time.monotonic() + WORTH_TELLING_S
        self._untold: list[Record] = []
        self._task: asyncio.Task[None] | None = None

    def tell(self, number: int, title: str) -> None:
        """Publish soon that an activity is written. Never raises or waits."""
        try:
            fact = activity_written(self._event, self._attempt.number, number, title, at=self._clock.now())
        except ValidationError:
            return  # what an event cannot carry is judged with the whole answer
        self._untold.append(record(JOB_EVENTS, fact))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._publish(), name="progress")

    async def _publish(self) -> None:
        await asyncio.sleep(self._worth_at - time.monotonic())
        while self._untold:
            facts, self._untold = self._untold, []
            try:
                await self._publisher.publish(facts)
            except DependencyDown as error:
                log.info("generation.progress_lost", job_id=str(self._event.job_id), why=str(error))

    async def end(self) -> None:
        """Return when all is told, or when the broker takes too long."""
        if self._task is None or self._task.done():
            return
        if time.monotonic() >= self._worth_at:
            await asyncio.wait({self._task}, timeout=_LAST_S)
        self._task.cancel()
