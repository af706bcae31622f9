"""An operator sees an organization's quota and use, and repairs its counters."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import aiosql

from consumers.quota.recount import Period, Subscription, books, recount, subscription
from infra.actions import Act, acting
from infra.errors import TeamfitError
from infra.operations.job_search import COUNTED, Count
from infra.postgres import Database
from streams.jobs.admission import next_period, period_of

_queries = aiosql.from_path(Path(__file__).with_name("quota.sql"), "asyncpg")


class UnknownOrganization(TeamfitError):
    """Neither the backend nor the ledger knows it."""


@dataclass(frozen=True, slots=True)
class QuotaBooks:
    """The quota of one organization.

    Attributes:
        subscription: what it may take; None if the backend does not know it.
        periods: its UTC months, the newest first; the current one is always among them.
    """

    organization_id: str
    subscription: Subscription | None
    periods: Sequence[Period]

    @property
    def wrong(self) -> Sequence[Period]:
        """The months whose counters are not the sums of the ledger."""
        return [one for one in self.periods if one.differs]

    def left(self, period: Period) -> int | None:
        """Return the jobs that may still be taken in a month; None without a quota."""
        quota = self.subscription.monthly_quota if self.subscription else None
        return None if quota is None else max(0, quota - period.reserved - period.charged)


async def read_books(database: Database, organization_id: str) -> QuotaBooks:
    """Return an organization's quota.

    Raises:
        UnknownOrganization: there is none.
        DependencyDown: Postgres is away.
    """
    async with database.transaction() as connection:
        known, periods = await subscription(connection, organization_id), await books(connection, organization_id)
    if known is None and not periods:
        raise UnknownOrganization(f"organization {organization_id}: not known; check the ID and DATABASE_URL")
    current = period_of(database.clock.now())
    if all(one.period != current for one in periods):
        periods = [Period(current, 0, 0, 0, 0, 0, 0), *periods]
    return QuotaBooks(organization_id, known, periods)


async def repair(database: Database, wrong: QuotaBooks) -> Sequence[Period]:
    """Count the differing months again from the ledger, which is right; return them.

    A repeat changes nothing. Admission of this organization waits for a moment.
    """
    months = [one.period for one in wrong.wrong]
    before = [
        f"{one.period}: {one.reserved} → {one.ledger_reserved}, {one.charged} → {one.ledger_charged}"
        for one in wrong.wrong
    ]
    act = Act("quota.repair", f"organization {wrong.organization_id}", effects={"reserved, charged": before})
    async with acting(database, act) as connection:
        await recount(connection, wrong.organization_id, months)
        done = {one.period: one for one in await books(connection, wrong.organization_id)}
    return [done[month] for month in months]


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
