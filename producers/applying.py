"""One process at a time applies a plan, at a rate, batch by batch. Stopped anywhere, another can go on."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeVar
from uuid import UUID

import aiosql

from infra.actions import Act, note_refusal
from infra.errors import Refused
from infra.postgres import Database

_queries = aiosql.from_path(Path(__file__).with_name("applying.sql"), "asyncpg")

T = TypeVar("T")

# Large enough that the round trips of a batch are spread over many, small enough to stop within a moment.
_LARGEST_BATCH: Final = 500
# A batch is about this long at the rate asked for, so that slow rates are even too.
_BATCH_S: Final = 0.2


@asynccontextmanager
async def alone(database: Database, plan_id: UUID, act: Act, busy: Refused) -> AsyncIterator[None]:
    """Hold the right to apply a plan. It ends with the connection, so a process that died holds nothing.

    Args:
        database: where the plan stands.
        plan_id: which.
        act: what is refused, for the log of actions.
        busy: raised when another has the right.
    """
    async with database.transaction() as connection:
        await _queries.keep_waiting_transaction(connection)
        # A 64-bit lock key from the 128 random bits of the plan's ID.
        if not await _queries.lock_plan(connection, lock_key=plan_id.int >> 65):
            await note_refusal(database, act, str(busy))
            raise busy
        yield


class Pace:
    """A rate is kept by waiting after each batch.

    Attributes:
        batch: how many a batch has at most.
    """

    def __init__(self, rate: float) -> None:
        self.batch = max(1, min(_LARGEST_BATCH, round(rate * _BATCH_S)))
        self._rate = rate
        self._turn = monotonic()

    async def after(self, count: int) -> None:
        """Wait until this many have had their time. What was not used before is not made up for."""
        self._turn = max(self._turn, monotonic() - _BATCH_S) + count / self._rate
        await asyncio.sleep(max(0.0, self._turn - monotonic()))


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Finish a batch even when cancelled meanwhile. So little is done twice after a stop."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise
