"""How many callers may use something scarce at a time; the others wait a little, and hear then that it is busy."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from infra.problems import RETRY_AFTER_S, Problem

# Longer than a broker that answers takes for the requests ahead; a caller who has waited so long should ask later.
_PATIENCE_S = 5.0


class Turns:
    """Turns at something that so many callers may use at a time."""

    def __init__(self, at_once: int) -> None:
        self._free = asyncio.Semaphore(max(at_once, 1))

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
