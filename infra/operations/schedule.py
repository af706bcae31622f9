"""The schedule holds what is published later, and the periodic tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

import aiosql

from infra.actions import Act, acting, current_actor
from infra.advice import require_known
from infra.operations.cursors import read_cursor, write_cursor
from infra.operations.job_search import COUNTED, Count
from infra.postgres import Database, plan_for_values
from producers.schedule.periodic import Standing, standings, want
from streams.jobs.stages import CONSUMER_GROUPS

_queries = aiosql.from_path(Path(__file__).with_name("schedule.sql"), "asyncpg")


@dataclass(frozen=True, slots=True)
class DueEvent:
    """An event that is published later.

    Attributes:
        job_id: its key, where that is a job's ID.
        key: its key, where its sender chose another.
    """

    id: UUID
    due_at: datetime
    topic: str
    reason: str
    job_id: UUID | None
    key: str | None
    created_at: datetime


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
        Refused: the cursor is none, or the topic unknown.
        DependencyDown: Postgres is away.
    """
    require_known("topic", topic, CONSUMER_GROUPS)
    after_at, after_id = (None, None) if cursor is None else read_cursor(cursor)
    async with database.transaction() as connection:
        await plan_for_values(connection, by_index=True)
        rows = _queries.due(connection, limit=limit + 1, after_at=after_at, after_id=after_id, topic=topic)
        found = [DueEvent(**{**row, **_key(row["key"])}) async for row in rows]
        counts = await _queries.counts(connection, limit=COUNTED + 1, now=database.clock.now(), topic=topic)
    last = found[limit - 1] if len(found) > limit else None
    return DuePage(
        found[:limit],
        Count.of(counts["total"]),
        Count.of(counts["overdue"]),
        write_cursor(last.due_at, last.id) if last else None,
    )


async def periodic_tasks(database: Database) -> Sequence[Standing]:
    """Return the periodic tasks, with their last and next times. Raises DependencyDown."""
    async with database.transaction() as connection:
        return await standings(connection)


async def run_task(database: Database, name: str, *, reason: str | None = None) -> Mapping[str, object]:
    """Have a periodic task run now; return what follows. A repeat before it has begun changes nothing.

    Raises:
        Refused: there is no such task, or it is running.
        DependencyDown: Postgres is away; whether it will run is unknown, so ask or repeat.
    """
    act = Act("schedule.run", f"task {name}", reason)
    async with acting(database, act) as connection:
        act.effects = dict(await want(connection, name, who=current_actor().name))
    return act.effects


def _key(key: bytes | None) -> dict[str, UUID | str | None]:
    text = None if key is None else key.decode(errors="replace")
    try:
        return {"job_id": UUID(text), "key": None} if text else {"job_id": None, "key": text}
    except ValueError:
        return {"job_id": None, "key": text}
