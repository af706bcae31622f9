"""The schedule holds what is published later: retries, and jobs that wait for their time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

import aiosql

from infra.operations.job_search import COUNTED, Count, read_cursor, write_cursor
from infra.postgres import Database

_queries = aiosql.from_path(Path(__file__).with_name("schedule.sql"), "asyncpg")


@dataclass(frozen=True, slots=True)
class DueEvent:
    """An event that is published later. Its key is a job's ID, unless its sender chose another."""

    id: UUID
    due_at: datetime
    topic: str
    reason: str
    key: str | None
    created_at: datetime

    @property
    def job_id(self) -> UUID | None:
        """Return the key as an ID, where it is one."""
        try:
            return None if self.key is None else UUID(self.key)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class DuePage:
    """A page has events in the order of their due times."""

    events: Sequence[DueEvent]
    total: Count
    overdue: Count
    next: str | None


async def read_due(
    database: Database, *, topic: str | None = None, limit: int = 50, cursor: str | None = None
) -> DuePage:
    """Return a page of what is published later, the soonest first.

    Raises:
        Refused: the cursor is none.
        DependencyDown: Postgres is away.
    """
    after_at, after_id = (None, None) if cursor is None else read_cursor(cursor)
    async with database.transaction() as connection:
        rows = _queries.due(connection, limit=limit + 1, after_at=after_at, after_id=after_id, topic=topic)
        found = [DueEvent(**{**row, "key": _text(row["key"])}) async for row in rows]
        counts = await _queries.counts(connection, limit=COUNTED + 1, now=database.clock.now(), topic=topic)
    last = found[limit - 1] if len(found) > limit else None
    return DuePage(
        found[:limit],
        Count.of(counts["total"]),
        Count.of(counts["overdue"]),
        write_cursor(last.due_at, last.id) if last else None,
    )


def _text(key: bytes | None) -> str | None:
    return None if key is None else key.decode(errors="replace")
