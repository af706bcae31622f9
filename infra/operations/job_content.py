"""A job's content is what its customer wrote and got, and its events. All of it is personal."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import aiosql

from consumers.projection.status import Activity, find_job
from infra.auth import OPERATOR, Caller
from infra.postgres import Database, plan_for_any_values

_queries = aiosql.from_path(Path(__file__).with_name("job_content.sql"), "asyncpg")


@dataclass(frozen=True, slots=True)
class JobContent:
    """The wish that the customer wrote, and the activities as the customer sees them."""

    requirements: str | None
    activities: Sequence[Activity]


@dataclass(frozen=True, slots=True)
class ArchivedEvent:
    """One event of the archive; `sequence` is its place there, `event` the CloudEvent."""

    sequence: int
    run: int
    type: str
    time: datetime
    archived_at: datetime
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in the order of arrival. `next` is the place to go on after, if there is more."""

    events: Sequence[ArchivedEvent]
    next: int | None


async def content_of(database: Database, job_id: UUID) -> JobContent:
    """Return the content of a job; of one that is unknown, nothing."""
    async with database.transaction(snapshot=True) as connection:
        row = await _queries.wish(connection, job_id=job_id)
        if row is None:
            return JobContent(None, [])
        # As its organization sees it; jobs of the Celery days without one are shown to operators alone.
        customer = Caller("", row["organization_id"], frozenset({OPERATOR}))
        status = await find_job(connection, job_id, customer)
    return JobContent(row["requirements"], status.activities if status else [])


async def archived_events(database: Database, job_id: UUID, *, after: int = 0, limit: int = 100) -> EventPage:
    """Return a page of a job's events, beginning after a place in the archive."""
    async with database.transaction() as connection:
        await plan_for_any_values(connection)
        rows = _queries.events(connection, job_id=job_id, after=after, limit=limit + 1)
        found = [ArchivedEvent(**row) async for row in rows]
    return EventPage(found[:limit], found[limit - 1].sequence if len(found) > limit else None)
