"""An operator reads an organization's quota here, and repairs counters changed by hand.

The ledger is right: it has a row for each run. The counters in `quota_usage` are its sums, kept so that admission locks
one row; nothing in the pipeline moves one without the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiosql

from infra.postgres import Connection

_queries = aiosql.from_path(Path(__file__).with_name("recount.sql"), "asyncpg")


@dataclass(frozen=True, slots=True)
class Subscription:
    """An organization may take this much. A field is None where the backend has no subscription for it."""

    name: str
    plan: str | None
    status: str | None
    monthly_quota: int | None


@dataclass(frozen=True, slots=True)
class Period:
    """One month: what the counters say, and what the ledger does."""

    period: str
    reserved: int
    charged: int
    ledger_reserved: int
    ledger_charged: int
    released: int
    rejected: int

    @property
    def differs(self) -> bool:
        """Return whether the counters differ from the sums of the ledger."""
        return (self.reserved, self.charged) != (self.ledger_reserved, self.ledger_charged)


async def subscription(connection: Connection, organization_id: str) -> Subscription | None:
    """Return what the organization may take, or None if the backend does not know it."""
    row = await _queries.subscription(connection, organization_id=organization_id)
    return Subscription(**row) if row else None


async def books(connection: Connection, organization_id: str) -> list[Period]:
    """Return every period of an organization, the newest first."""
    return [Period(**row) async for row in _queries.books(connection, organization_id=organization_id)]


async def recount(connection: Connection, organization_id: str, periods: Sequence[str]) -> None:
    """Set the counters of these periods to the sums of the ledger. Repeating it changes nothing.

    Admission of this organization waits until the caller's transaction ends. Whoever changes a reservation holds the
    counter's lock, so that what is counted here under the same lock is neither old nor half done.

    Args:
        connection: inside a transaction of the default isolation, so that each statement sees what was committed before
            it; this does not commit.
        organization_id: whose.
        periods: UTC months ("2031-04"); a counter that is missing is made.
    """
    await _queries.lock(connection, organization_id=organization_id, periods=sorted(periods))
    await _queries.recount(connection, organization_id=organization_id, periods=list(periods))
