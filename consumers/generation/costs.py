"""Calls on record that have no price, for operators who set prices.

A trigger prices a call in the transaction that records it, as its model's price then says. A call of a model without a
price has no cost until somebody sets one.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import aiosql

from infra.postgres import Connection

_queries = aiosql.from_path(Path(__file__).with_name("costs.sql"), "asyncpg")


async def without_price(connection: Connection, *, most: int | None = None) -> Mapping[str, int]:
    """Return how many calls of which models have no price. Of each, so many are counted at most.

    The caller's transaction reads by index from then on, if there is a bound.
    """
    if most is not None:
        # A map of all calls of a model would be made before the first is counted.
        await connection.execute("SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off")
    return {row["model"]: row["calls"] async for row in _queries.without_price(connection, most=most)}


async def would_price(connection: Connection, model: str, holds_from: datetime, *, most: int) -> int:
    """Return how many unpriced calls would get this model's price, counted up to so many."""
    return int(await _queries.would_price(connection, model=model, holds_from=holds_from, most=most))


async def price_again(connection: Connection, holds_from: datetime) -> int:
    """Price the calls begun since that have no price; return how many have one now.

    Repeats are harmless. Calls that have a price keep it: what was billed does not change afterwards.
    """
    return int(await _queries.price_again(connection, holds_from=holds_from))
