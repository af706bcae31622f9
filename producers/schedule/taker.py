"""Taking due events out of `scheduled_events` and publishing them."""

from dataclasses import dataclass, field

import structlog

from infra import telemetry
from infra.clock import Clock
from infra.errors import DependencyDown
from infra.postgres import Database
from streams.delivery.dead_letters import dead_letter
from streams.delivery.deliveries import Delivery, Record
from streams.delivery.interfaces import FailedEventStore, Publisher
from streams.delivery.letters import failed_event_of
from streams.delivery.scheduled import take_due
from streams.jobs.dispatch import rejoin

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
    failed_events: FailedEventStore
    clock: Clock
    batch_size: int = 200
    held: str | None = field(default=None, init=False)

    async def tick(self) -> None:
        """Publish everything that is due now. While Postgres or the broker is away, do nothing and say so once."""
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
        """Publish a batch of what is due, delete its rows, and return their number.

        A run whose retry is due waits for its turn again instead.

        Dying in between publishes them again, which handlers tolerate.

        Raises:
            DependencyDown: Postgres or the broker is away; the rows stay.
        """
        async with self.database.transaction() as connection:
            records = await take_due(connection, now=self.clock.now(), limit=self.batch_size)
            if publish := await rejoin(connection, records):
                await self._publish(publish)
        return len(records)

    async def _publish(self, records: list[Record]) -> None:
        """Publish records; one that cannot be published is set aside as a failed event, and the others go on.

        It is kept before its row is forgotten, in a transaction of its own: dying in between keeps it once more, which
        changes nothing.
        """
        try:
            await self.publisher.publish(records)
        except DependencyDown:
            raise
        except Exception as error:
            if len(records) > 1:
                half = len(records) // 2
                await self._publish(records[:half])
                await self._publish(records[half:])
                return
            [record] = records
            telemetry.SET_ASIDE.labels("schedule").inc()
            log.exception("schedule.set_aside", topic=record.topic)
            delivery = Delivery(record.topic, record.key, record.value, record.headers)
            letter = dead_letter(delivery, group="schedule", error=error)
            await self.failed_events.keep_one(failed_event_of(letter))
