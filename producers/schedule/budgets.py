"""A mark of 80 or 100 % of a month's budget is told once.

If the process dies after a mark was noted, its log line and its count are missing; the row in `budget_marks` stays.
"""

from dataclasses import dataclass
from pathlib import Path

import aiosql
import structlog

from infra import telemetry
from infra.clock import Clock
from infra.postgres import Database
from streams.jobs.admission import money, period_of

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("budgets.sql"), "asyncpg")


@dataclass(frozen=True, slots=True)
class Budgets:
    """Looks how much of the month's budgets is spent."""

    database: Database
    clock: Clock

    async def tell(self) -> int:
        """Tell of each mark that was newly reached; return how many. Raises DependencyDown."""
        async with self.database.transaction() as connection:
            reached = [row async for row in _queries.reach(connection, period=period_of(self.clock.now()))]
        for row in reached:
            telemetry.BUDGET_REACHED.labels(str(row["percent"])).inc()
            log.warning(
                "budget.reached",
                organization_id=row["organization_id"],
                period=row["period"],
                percent=row["percent"],
                budget=money(row["budget"]),
                spent=money(row["cost"]),
            )
        return len(reached)
