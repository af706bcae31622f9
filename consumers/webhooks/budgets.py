"""A fact about a budget is believed, and found, by the mark of the schedule.

Every function works in its caller's transaction.
"""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import aiosql

from consumers.webhooks.messages import BUDGET
from infra.errors import ForgedEvent
from infra.postgres import Connection
from streams.jobs.organization_facts import BudgetReached, Reached, budget_reached

_queries = aiosql.from_path(Path(__file__).with_name("budgets.sql"), "asyncpg")

# What the schedule has noted comes by the broker within seconds; what has not come since then is lost.
_SETTLED_AFTER: Final = timedelta(minutes=2)
_LOOKED_BACK: Final = timedelta(hours=1)


async def check(connection: Connection, fact: BudgetReached) -> None:
    """Pass if a fact is true. Whoever may write to the topic could have made it up.

    Raises:
        ForgedEvent: no such mark was reached, or the ID is not the one that follows from what it says.
    """
    told = fact.data
    if fact.id != budget_reached(told, at=fact.time).id:
        raise ForgedEvent(f"id: {fact.id!r} is not the one that a fact of this kind has; only the stages write facts")
    if not await _queries.is_true(
        connection,
        organization_id=told.organization_id,
        period=told.period,
        percent=told.percent,
        budget=told.budget,
    ):
        raise ForgedEvent(f"data: {told.organization_id} has not reached {told.percent} % of a budget of {told.budget}")


async def lately(connection: Connection, *, now: datetime) -> list[BudgetReached]:
    """Return the facts of the last hour that an endpoint wants to be told of."""
    rows = _queries.lately(connection, since=now - _LOOKED_BACK, before=now - _SETTLED_AFTER, kind=BUDGET)
    found = []
    async for row in rows:
        values = dict(row)
        at = values.pop("reached_at")
        found.append(budget_reached(Reached(**values), at=at))
    return found
