"""Retention deletes old events of ended jobs and failed events that were dealt with.

Whole jobs go only where a setting asks for it.

An ended job's events are deleted all at once.
The read model keeps the jobs' last state. `archive_retention.horizon` is written in the same transactions as the
deletions and says how far they went: a job that ended before it may have no events any more, and whoever compares
archive and read model (`teamfit verify`, a rebuild) must not take that for a gap. `jobs_horizon` says the same of whole
jobs; it is the beginning of a month, so that a month's counters are compared with its ledger only while that is whole.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import aiosql
import structlog

from infra import telemetry
from infra.clock import Clock
from infra.postgres import Database

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("queries.sql"), "asyncpg")

# A fact may be archived so long after its delivery was made, or the delivery made so long after that.
_LATER: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Retention:
    """Deletes what need not be kept.

    Attributes:
        keep: how long the events of an ended job stay, and failed events that were dealt with.
        keep_jobs: how long an ended job stays with everything about it; None: for ever.
        keep_hours: how long the hourly figures of LLM endpoints stay.
        keep_webhooks: how long deliveries of webhooks stay.
        page_size: events looked at in one transaction; more: fewer transactions, and longer locks.
    """

    database: Database
    clock: Clock
    keep: timedelta
    keep_jobs: timedelta | None = None
    keep_hours: timedelta = timedelta(days=90)
    keep_webhooks: timedelta = timedelta(days=30)
    page_size: int = 2_000

    async def delete_old(self) -> int:
        """Delete the events of jobs that ended before the horizon; return how many events.

        It walks the archive from its beginning, where almost nothing but such events is, until it meets a page of
        events that are all younger than the horizon. Every page is a transaction, so stopping half-way loses nothing
        and the next call goes on.

        Raises:
            DependencyDown: Postgres is away.
        """
        horizon = self._horizon(self.keep)
        deleted, after = 0, 0
        while True:
            async with self.database.transaction(for_values=True) as connection:
                page = await _queries.delete_page(connection, after=after, horizon=horizon, size=self.page_size)
                if page["deleted"]:
                    await _queries.note_horizon(connection, horizon=horizon, deleted=page["deleted"])
            deleted += int(page["deleted"])
            if page["last"] is None or page["reached"]:
                break
            after = page["last"]
        if deleted:
            telemetry.ARCHIVED_EVENTS_DELETED.inc(deleted)
            log.info("archive.deleted", deleted=deleted, horizon=horizon.isoformat())
        return deleted

    async def delete_settled(self) -> int:
        """Delete the settled failed events and ended plans before the horizon; return how many events.

        Open failed events stay until somebody replays or discards them. Early cancellations go with the old.

        Raises:
            DependencyDown: Postgres is away.
        """
        horizon = self._horizon(self.keep)
        async with self.database.transaction(for_values=True) as connection:
            await _queries.delete_early(connection, horizon=horizon)
            await _queries.delete_cancel_plans(connection, horizon=horizon)
            await _queries.delete_discard_plans(connection, horizon=horizon)
        deleted = 0
        while True:
            async with self.database.transaction(for_values=True) as connection:
                page = await _queries.delete_settled(connection, horizon=horizon, size=self.page_size)
                await _queries.delete_plans(connection, plans=page["plans"] or [])
                if page["deleted"]:
                    await _queries.note_horizon(connection, horizon=horizon, deleted=0)
            if not page["deleted"]:
                return deleted
            deleted += int(page["deleted"])

    async def delete_jobs(self) -> int:
        """Delete jobs that ended before the month in which `keep_jobs` ago lies; return how many. None: keep them all.

        A page is a transaction in which the jobs' rows are locked, so no event of theirs is archived meanwhile.

        Raises:
            DependencyDown: Postgres is away.
        """
        if self.keep_jobs is None:
            return 0
        horizon = self._horizon(self.keep_jobs).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        deleted = 0
        while True:
            async with self.database.transaction(for_values=True) as connection:
                rows = _queries.lock_old_jobs(connection, horizon=horizon, size=self.page_size)
                job_ids = [row["job_id"] async for row in rows]
                if job_ids:
                    await _queries.delete_jobs(connection, job_ids=job_ids)
                    await _queries.note_jobs_horizon(connection, horizon=horizon)
            deleted += len(job_ids)
            if len(job_ids) < self.page_size:
                break
        if deleted:
            log.info("jobs.deleted", deleted=deleted, horizon=horizon.isoformat())
        return deleted

    async def delete_hours(self) -> int:
        """Delete the hourly figures of LLM endpoints before the horizon; return how many. Raises DependencyDown."""
        async with self.database.transaction(for_values=True) as connection:
            return int(await _queries.delete_hours(connection, horizon=self._horizon(self.keep_hours)))

    async def delete_webhooks(self) -> int:
        """Delete deliveries of webhooks that are older than the horizon; return how many.

        What is noted first says from when on all are there, for whoever compares them with the facts. Dying before the
        deletions only makes that time later than it need be.

        Raises:
            DependencyDown: Postgres is away.
        """
        horizon = self._horizon(self.keep_webhooks)
        async with self.database.transaction(for_values=True) as connection:
            await _queries.note_webhooks_horizon(connection, horizon=horizon, whole_from=horizon + _LATER)
        deleted, page = 0, self.page_size
        while page == self.page_size:
            async with self.database.transaction(for_values=True) as connection:
                page = int(await _queries.delete_webhooks(connection, horizon=horizon, size=self.page_size))
            deleted += page
        return deleted

    def _horizon(self, keep: timedelta) -> datetime:
        # What is deleted is gone, so this machine's clock must agree that it is old: no single wrong clock can do it.
        return min(self.clock.now(), datetime.now(UTC)).astimezone(UTC) - keep
