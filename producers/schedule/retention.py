"""Retention of the archive: events of jobs that ended long ago are deleted, a job's all at once.

The read model keeps the jobs' last state. `archive_retention.horizon` is written in the same transactions as the
deletions and says how far they went: a job that ended before it may have no events any more, and whoever compares
archive and read model (`teamfit verify`, a rebuild) must not take that for a gap.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiosql
import structlog

from infra import telemetry
from infra.clock import Clock
from infra.postgres import Database

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("queries.sql"), "asyncpg")


@dataclass(frozen=True, slots=True)
class Retention:
    """Deletes what need not be kept.

    Attributes:
        keep: how long the events of an ended job stay.
        page_size: events looked at in one transaction; more: fewer transactions, and longer locks.
    """

    database: Database
    clock: Clock
    keep: timedelta
    page_size: int = 2_000

    async def delete_old(self) -> int:
        """Delete the events of jobs that ended before the horizon; return how many events.

        It walks the archive from its beginning, where almost nothing but such events is, until it meets a page of
        events that are all younger than the horizon. Every page is a transaction, so stopping half-way loses nothing
        and the next call goes on.

        Raises:
            DependencyDown: Postgres is away.
        """
        # What is deleted is gone, so this machine's clock must agree that it is old: no single wrong clock can do it.
        horizon = min(self.clock.now(), datetime.now(UTC)) - self.keep
        deleted, after = 0, 0
        while True:
            async with self.database.transaction() as connection:
                page = await _queries.delete_page(connection, after=after, horizon=horizon, size=self.page_size)
                if page["deleted"]:
                    await _queries.note_horizon(connection, horizon=horizon, deleted=page["deleted"])
            deleted += int(page["deleted"])
            if page["last"] is None or page["reached"]:
                break
            after = page["last"]
        if deleted:
            telemetry.ARCHIVED_EVENTS_DELETED.inc(deleted)
            log.info("archive.retention", deleted=deleted, horizon=horizon.isoformat())
        return deleted
