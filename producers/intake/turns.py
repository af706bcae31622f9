"""How many requests are recorded at a time.

Each holds a database connection until the broker has answered (decision 7). A slow broker would soon have them hold all
connections of the process, and reading a job would wait for the broker too; so a quarter of the pool is not for them.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from infra.problems import RETRY_AFTER_S, Problem

# Longer than a broker that answers takes for the requests ahead; a caller who has waited so long should ask later.
_PATIENCE_S = 5.0


class Turns:
    """Turns at recording a request: as many at a time as three quarters of a pool of this size allow."""

    def __init__(self, pool_size: int) -> None:
        self._free = asyncio.Semaphore(max(pool_size - max(pool_size // 4, 1), 1))

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold a turn until the block ends.

        Raises:
            Problem: 503; none came free in five seconds.
        """
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._free.acquire()
        except TimeoutError as error:
            raise Problem(
                503,
                "too_busy",
                "more requests come in than can be taken at present; send this one again",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            ) from error
        try:
            yield
        finally:
            self._free.release()
