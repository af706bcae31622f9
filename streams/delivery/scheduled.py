"""Records in `scheduled_events` until they are due: retries, delayed jobs. A restart keeps them, SQL shows them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes
from uuid import NAMESPACE_URL, UUID, uuid5

import aiosql

from infra.clock import Clock
from infra.postgres import Connection, Database, Session
from infra.texts import storable
from streams.delivery.deliveries import Record

_LONGEST_REASON = 4_000

_queries = aiosql.from_path(Path(__file__).with_name("scheduled.sql"), "asyncpg")


@dataclass(frozen=True, slots=True)
class ScheduledRetries:
    """Keeps a stage's retries. Implements `streams.delivery.stage.RetrySchedule`."""

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
    """Keep a record in the caller's transaction. The same topic, bytes and headers are kept once."""
    await _queries.keep(
        connection,
        id=_identity(record),
        topic=record.topic,
        key=record.key,
        event=record.value,
        headers=kept_headers(record.headers),
        due_at=due_at,
        now=now,
        reason=storable(reason, _LONGEST_REASON),
    )


async def take_due(connection: Connection, *, now: datetime, limit: int) -> list[Record]:
    """Remove and return what is due, oldest first, skipping rows that another taker holds.

    The rows are gone only when the caller's transaction commits, so publish before that: a crash in between publishes
    them again, which handlers tolerate.
    """
    rows = _queries.take_due(connection, now=now, limit=limit)
    return [Record(row["topic"], row["key"], row["event"], read_headers(row["headers"])) async for row in rows]


async def hasten(connection: "Connection | Session", *, reason: str, now: datetime) -> int:
    """Make due what waits for this reason; return how much there was."""
    return int(await _queries.hasten(connection, reason=storable(reason, _LONGEST_REASON), now=now))


async def hasten_keys(connection: Connection, keys: Sequence[bytes], *, topic: str, now: datetime) -> None:
    """Make due what this topic is to get later of these keys."""
    await _queries.hasten_keys(connection, keys=keys, topic=topic, now=now)


def kept_headers(headers: Mapping[str, bytes]) -> dict[str, str]:
    """Return headers as `jsonb` takes them.

    Theirs are any bytes, and it takes neither NUL nor what is no UTF-8.
    """
    return {quote_from_bytes(_raw(name)): quote_from_bytes(value) for name, value in headers.items()}


def read_headers(kept: object) -> dict[str, bytes]:
    """Return kept headers as they were."""
    # Rows that somebody wrote by hand may hold anything; what is no header is none.
    pairs = kept.items() if isinstance(kept, dict) else ()
    return {_name(name): unquote_to_bytes(value) for name, value in pairs if isinstance(value, str)}


def _identity(record: Record) -> UUID:
    digest = hashlib.sha256()
    for part in (record.topic.encode(), record.key or b"", record.value or b""):
        digest.update(len(part).to_bytes(8, "big") + part)
    for name, value in sorted(record.headers.items()):
        digest.update(_raw(name) + b"\0" + value + b"\0")
    return uuid5(NAMESPACE_URL, digest.hexdigest())


def _raw(name: str) -> bytes:
    # A name that is no UTF-8 was read with `surrogateescape`.
    return name.encode(errors="surrogateescape")


def _name(quoted: str) -> str:
    return unquote_to_bytes(quoted).decode(errors="surrogateescape")
