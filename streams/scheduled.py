"""Records in `scheduled_events` until they are due: retries, delayed jobs. A restart keeps them, SQL shows them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes
from uuid import NAMESPACE_URL, UUID, uuid5

import aiosql

from infra.clock import Clock
from infra.postgres import Connection, Database
from streams.dead_letters import letter_id
from streams.deliveries import Record
from streams.redis.dead_letter import DEAD_LETTER_GROUP, DEAD_LETTER_TOPIC
from streams.topics import DEAD_LETTERS

_queries = aiosql.from_path(Path(__file__).with_name("scheduled.sql"), "asyncpg")


@dataclass(frozen=True, slots=True)
class ScheduledRetries:
    """Keeps a stage's retries. Implements `streams.stage.RetrySchedule`."""

    database: Database
    clock: Clock

    async def schedule(self, record: Record, delay: timedelta, *, reason: str) -> None:
        """Keep the record until the delay has passed; repeating the call keeps it once.

        Raises:
            DependencyDown: Postgres is away; whether it was kept is unknown.
        """
        async with self.database.transaction() as connection:
            now = self.clock.now()
            await keep(connection, record, now=now, due_at=now + delay, reason=reason)


async def keep(connection: Connection, record: Record, *, now: datetime, due_at: datetime, reason: str) -> None:
    """Keep a record in the caller's transaction. The same topic, bytes and headers, or `letter_id`, are kept once."""
    # Headers are bytes, and `jsonb` takes neither NUL nor what is no UTF-8.
    await _queries.keep(
        connection,
        id=_identity(record),
        topic=record.topic,
        key=record.key,
        event=record.value,
        headers={name: quote_from_bytes(value) for name, value in record.headers.items()},
        due_at=due_at,
        now=now,
        reason=reason,
    )


async def take_due(connection: Connection, *, now: datetime, limit: int) -> Sequence[Record]:
    """Remove and return what is due, oldest first, skipping rows that another taker holds.

    The rows are gone only when the caller's transaction commits, so publish before that: a crash in between publishes
    them again, which handlers tolerate.
    """
    # aiosql would read the rows through a cursor, fifty a round trip.
    rows = await connection.fetch(_queries.take_due.sql, now, limit)
    return [
        Record(
            row["topic"],
            row["key"],
            row["event"],
            {name: unquote_to_bytes(value) for name, value in row["headers"].items()},
        )
        for row in rows
    ]


def _identity(record: Record) -> UUID:
    if record.topic == DEAD_LETTERS:
        # Not by its headers, which hold the time: whoever keeps the letter must find it, and a repeat keeps it once.
        topic, stage = (record.headers[name].decode() for name in (DEAD_LETTER_TOPIC, DEAD_LETTER_GROUP))
        return letter_id(topic, stage, record.key, record.value)
    digest = hashlib.sha256()
    for part in (record.topic.encode(), record.key or b"", record.value or b""):
        digest.update(len(part).to_bytes(8, "big") + part)
    for name, value in sorted(record.headers.items()):
        digest.update(name.encode() + b"\0" + value + b"\0")
    return uuid5(NAMESPACE_URL, digest.hexdigest())
