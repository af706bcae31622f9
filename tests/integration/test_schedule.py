"""Publishing what is due."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from structlog.testing import capture_logs

from infra.errors import DependencyDown
from infra.postgres import Database
from producers.schedule.taker import Taker
from streams.delivery.deliveries import Record
from streams.delivery.failed_events import FailedEvents
from streams.delivery.scheduled import keep
from tests.conftest import Pool

NOON = datetime(2031, 4, 15, 12, tzinfo=UTC)


class Noon:
    """A clock that stands at noon."""

    def now(self) -> datetime:
        return NOON


@dataclass
class Broker:
    """Collects what is published, or is away."""

    published: list[Record] = field(default_factory=list)
    away: bool = False

    async def publish(self, records: Sequence[Record]) -> None:
        if self.away:
            raise DependencyDown("broker", "gone")
        self.published.extend(records)
        await asyncio.sleep(0)


async def schedule(database: Database, count: int, *, due: timedelta = timedelta()) -> set[bytes | None]:
    """Keep events until `due` after noon; return their values."""
    values = [f"{due} {n}".encode() for n in range(count)]
    async with database.transaction() as connection:
        for value in values:
            await keep(
                connection,
                Record("job-requests", b"key", value, {"attempt": b"2"}),
                now=NOON,
                due_at=NOON + due,
                reason="test",
            )
    return set(values)


async def test_one_tick_publishes_all_that_is_due_and_nothing_else(postgres: Database) -> None:
    """A backlog larger than a batch does not wait for the next tick; what is due later stays."""
    due = await schedule(postgres, 25)
    await schedule(postgres, 3, due=timedelta(seconds=1))
    broker = Broker()
    await Taker(postgres, broker, FailedEvents(postgres, Noon()), Noon(), batch_size=10).tick()
    assert len(broker.published) == 25
    assert {record.value for record in broker.published} == due
    assert broker.published[0].headers == {"attempt": b"2"}


async def test_takers_side_by_side_publish_each_event_once(postgres: Database) -> None:
    """Two workers skip each other's rows instead of waiting for them."""
    due = await schedule(postgres, 60)
    broker = Broker()
    await asyncio.gather(
        *(Taker(postgres, broker, FailedEvents(postgres, Noon()), Noon(), batch_size=5).tick() for _ in range(3))
    )
    assert sorted(record.value or b"" for record in broker.published) == sorted(value or b"" for value in due)


async def test_a_broker_that_is_away_is_said_once_and_loses_nothing(postgres: Database) -> None:
    """The events stay in the table, the log gets one line, not one a tick, and one when all is well again."""
    due = await schedule(postgres, 3)
    broker = Broker(away=True)
    taker = Taker(postgres, broker, FailedEvents(postgres, Noon()), Noon())
    with capture_logs() as logs:
        for _ in range(5):
            await taker.tick()
        assert taker.held == "gone"
        broker.away = False
        await taker.tick()
    assert [line["event"] for line in logs] == ["schedule.held", "schedule.resumed"]
    assert taker.held is None
    assert {record.value for record in broker.published} == due


async def test_a_record_that_cannot_be_published_is_set_aside_and_the_others_go_on(
    postgres: Database, database: Pool
) -> None:
    """Whatever the producer raises about one record, it is a failed event then, and the rest is published."""
    due = await schedule(postgres, 25)
    bad = sorted(value or b"" for value in due)[7]

    class Picky(Broker):
        async def publish(self, records: Sequence[Record]) -> None:
            if any(record.value == bad for record in records):
                raise ValueError("no such record")
            await super().publish(records)

    broker = Picky()
    taker = Taker(postgres, broker, FailedEvents(postgres, Noon()), Noon(), batch_size=10)
    await taker.tick()
    assert {record.value for record in broker.published} == due - {bad}
    rows = await database.fetch("SELECT event, topic, stage, error_type FROM failed_events")
    assert [tuple(row) for row in rows] == [(bad, "job-requests", "schedule", "ValueError")]
    assert await database.fetchval("SELECT count(*) FROM scheduled_events") == 0
