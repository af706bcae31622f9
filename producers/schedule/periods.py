"""Opening quota periods: a row of `quota_usage` for each subscribed organization and UTC month.

The period is part of the key, so a new month starts from zero by itself, and the row's existence is the reset: it is
made once, whoever comes first. Quota makes a row that is missing when it needs it, so a crontab that was missed does no
harm; that the rows are there from midnight on is for those who read them. Opening runs on the first of the month,
every hour and at each start: a leader that died at midnight, or a fleet that was down, is caught up with.
"""

from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

import aiosql
import structlog

from infra.clock import Clock
from infra.postgres import Database

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("queries.sql"), "asyncpg")


@dataclass(frozen=True, slots=True)
class Periods:
    """The quota periods."""

    database: Database
    clock: Clock

    async def open_current(self) -> int:
        """Open this month's period where it is not open; return for how many organizations.

        Raises:
            DependencyDown: Postgres is away.
        """
        async with self.database.transaction() as connection:
            period = self.clock.now().astimezone(UTC).strftime("%Y-%m")
            opened = int(await _queries.open_period(connection, period=period))
        if opened:
            log.info("quota.period_opened", period=period, organizations=opened)
        return opened
