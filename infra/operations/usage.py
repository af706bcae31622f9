"""An organization's use is its quota, and what of it waits and is under way."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import aiosql

from infra.operations.job_search import COUNTED, Count
from infra.postgres import Database
from streams.jobs.admission import next_period, period_of

_queries = aiosql.from_path(Path(__file__).with_name("usage.sql"), "asyncpg")


@dataclass(frozen=True, slots=True)
class Usage:
    """The use of one organization in the current month.

    Attributes:
        monthly_quota: None without a subscription.
        reserved: units held by jobs that have not ended.
        charged: units taken by jobs that have completed.
        waiting: its pending jobs; those with a `run_at` from then on.
        in_flight: its jobs that are being processed.
        is_known: whether there is such an organization, or was when it took something.
        budget, budget_kind: what the month's LLM calls may cost, in micro-units, and whether that stops it.
    """

    organization_id: str
    period: str
    reset_at: datetime
    monthly_quota: int | None
    reserved: int
    charged: int
    waiting: Count
    in_flight: Count
    budget: int | None
    budget_kind: str | None
    is_known: bool

    @property
    def left(self) -> int | None:
        """The jobs that may still be asked for in this month; None without a subscription."""
        return None if self.monthly_quota is None else max(0, self.monthly_quota - self.reserved - self.charged)


async def read_usage(database: Database, organization_id: str) -> Usage:
    """Return an organization's use. An unknown one has none.

    Raises:
        DependencyDown: Postgres is away.
    """
    now = database.clock.now()
    period = period_of(now)
    async with database.transaction() as connection:
        row = await _queries.usage(
            connection, organization_id=organization_id, period=period, limit=COUNTED + 1, now=now
        )
    return Usage(
        organization_id,
        period,
        next_period(now),
        row["monthly_quota"],
        row["reserved"],
        row["charged"],
        Count.of(row["waiting"]),
        Count.of(row["in_flight"]),
        row["budget"],
        row["budget_kind"],
        row["is_known"],
    )
