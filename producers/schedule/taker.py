"""Taking due events out of `scheduled_events` and publishing them."""

from dataclasses import dataclass, field

import structlog

from infra.clock import Clock
from infra.errors import DependencyDown
from infra.postgres import Database
from streams.dead_letters import NOT_YET_KEPT, UNTIL_KEPT
from streams.scheduled import keep, take_due
from streams.stage import Publisher
from streams.topics import DEAD_LETTERS

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Taker:
    """Publishes what is due. Any number may work side by side: each skips the rows that another holds.

    Attributes:
        batch_size: events published in one transaction; more: fewer round trips, and more events published twice when
            the process dies before its commit.
        held: why nothing is published at present, or None.
    """

    database: Database
    publisher: Publisher
    clock: Clock
    batch_size: int = 200
    held: str | None = field(default=None, init=False)

    async def tick(self) -> None:
        """Publish everything that is due now. While Postgres or the broker is away, do nothing and say so once.

        Any other error is a bug and ends the worker: the rows stay.
        """
        try:
            while await self.publish_due() >= self.batch_size:
                pass
        except DependencyDown as error:
            if self.held is None:
                log.warning("schedule.held", dependency=error.dependency, why=str(error))
            self.held = str(error)
        else:
            if self.held is not None:
                log.info("schedule.resumed")
            self.held = None

    async def publish_due(self) -> int:
        """Publish a batch of what is due, or two, and forget it; return how many events there were.

        Dying in between publishes them again, which handlers tolerate. A dead letter is forgotten by whoever keeps it.

        Raises:
            DependencyDown: Postgres or the broker is away; the rows stay.
        """
        async with self.database.transaction() as connection:
            now = self.clock.now()
            records = await take_due(connection, now=now, limit=self.batch_size)
            if records:
                await self.publisher.publish(records)
            for letter in (one for one in records if one.topic == DEAD_LETTERS):
                await keep(connection, letter, now=now, due_at=now + UNTIL_KEPT, reason=NOT_YET_KEPT)
        return len(records)
