"""The calls at each endpoint are added up by the hour, for operators.

A worker tells every few seconds. What it has not told when it dies is missing here, and nowhere else: what calls cost
is in the record of the attempts. A trigger prices a call in the transaction that records it, as its model's price then
says. A call of a model without a price has no cost until somebody sets one.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import aiosql
import structlog

from infra.errors import DependencyDown
from infra.postgres import Connection, Database
from streams.jobs.completion import Usage

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("meter.sql"), "asyncpg")

_TELL_S: Final = 5.0
_NOTHING: Final = {"calls": 0, "failed": 0, "refused": 0, "seconds": 0.0, "prompt_tokens": 0, "completion_tokens": 0}


@dataclass(frozen=True, slots=True)
class EndpointUse:
    """An operator sees this of an endpoint.

    Attributes:
        closed_for: how long its gate is closed yet.
        held: why it is not called, if it is not.
        failed: calls that gave no activities, whoever is to blame.
        refused: those of them that it answered 429.
        cost: of the tokens that are known, in micro-units of the prices' currency; None: the model has no price.
    """

    endpoint: str
    model: str
    closed_for: timedelta
    held: str | None
    calls: int
    failed: int
    refused: int
    seconds_per_call: float | None
    prompt_tokens: int
    completion_tokens: int
    cost: int | None
    requests_per_minute: float | None
    tokens_per_minute: float | None


class Meter:
    """Counts one endpoint's calls in this worker."""

    def __init__(self, database: Database, endpoint: str, model: str) -> None:
        self._database = database
        self._row = {"endpoint": endpoint, "model": model}
        self._counted: dict[str, float] = dict(_NOTHING)
        self._told_at = float("-inf")

    def count(self, seconds: float, usage: Usage | None, *, failed: bool = False, refused: bool = False) -> None:
        """Note a call."""
        for name, number in (
            ("calls", 1),
            ("failed", failed),
            ("refused", refused),
            ("seconds", seconds),
            ("prompt_tokens", (usage and usage.prompt_tokens) or 0),
            ("completion_tokens", (usage and usage.completion_tokens) or 0),
        ):
            self._counted[name] += number

    async def tell(self) -> None:
        """Tell the fleet, if it is time.

        What cannot be told is kept for the next time.
        """
        now = time.monotonic()
        if now - self._told_at >= _TELL_S:
            self._told_at = now
            await self.tell_now()

    async def tell_now(self) -> None:
        """Tell the fleet all that it has not heard."""
        telling, self._counted = self._counted, dict(_NOTHING)
        if not telling["calls"]:
            return
        try:
            async with self._database.transaction() as connection:
                await _queries.add(connection, **self._row, **telling)
        except DependencyDown as error:
            for name, number in telling.items():
                self._counted[name] += number
            log.warning("llm.use_not_told", why=str(error))


async def endpoints(connection: Connection, hours: int) -> list[EndpointUse]:
    """Return every endpoint that was called in the last hours."""
    return [EndpointUse(**row) async for row in _queries.endpoints(connection, hours=hours)]


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
