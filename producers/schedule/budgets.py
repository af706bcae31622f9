"""A mark of a month's budget is told once, as a fact on `job-events`.

The fact is kept in `scheduled_events` by the transaction that notes the mark, and published by whoever publishes what
is due. If the process dies before the commit, the next look finds the mark; after it, only the log line and the count
are missing.
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import aiosql
import structlog

from infra import telemetry
from infra.clock import Clock
from infra.postgres import Connection, Database
from streams.delivery.scheduled import keep
from streams.jobs.admission import money, period_of
from streams.jobs.organization_facts import BudgetReached, Reached, budget_reached
from streams.jobs.topics import JOB_EVENTS, record

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("budgets.sql"), "asyncpg")

# A month is looked at for so long after its end: its last calls end later, and a look may be late.
_LATE: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Budgets:
    """Looks how much of the month's budgets is spent."""

    database: Database
    clock: Clock

    async def tell(self) -> int:
        """Tell of each mark that was newly reached; return how many. Raises DependencyDown."""
        now = self.clock.now()
        async with self.database.transaction(for_values=True) as connection:
            facts = [
                fact
                for period in sorted({period_of(now - _LATE), period_of(now)})
                for fact in await _reached(connection, period)
            ]
            for fact in facts:
                await keep(connection, record(JOB_EVENTS, fact), now=now, due_at=now, reason=_reason(fact.data))
        for fact in facts:
            told = fact.data
            telemetry.BUDGET_REACHED.labels(str(told.percent)).inc()
            log.warning(
                "budget.reached",
                organization_id=told.organization_id,
                period=told.period,
                percent=told.percent,
                budget=money(told.budget),
                spent=money(told.spent),
            )
        return len(facts)


async def _reached(connection: Connection, period: str) -> list[BudgetReached]:
    found = []
    async for row in _queries.reach(connection, period=period):
        values = dict(row)
        at = values.pop("reached_at")
        found.append(budget_reached(Reached(**values), at=at))
    return found


def _reason(told: Reached) -> str:
    return f"{told.percent} % of the budget of {told.organization_id} for {told.period} is spent"
