"""A limit lets N callers use something scarce at a time.

The others wait a little, and are then told that it is busy.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from infra.errors import Refused

# Longer than a broker that answers takes for the requests ahead; a caller who has waited so long should ask later.
_LONGEST_WAIT_S = 5.0
_RETRY_AFTER = timedelta(seconds=5)


class Turns:
    """Turns at something that so many callers may use at a time."""

    def __init__(self, at_once: int) -> None:
        self._free = asyncio.Semaphore(max(at_once, 1))

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold a turn until the block ends.

        Raises:
            Refused: none came free in five seconds.
        """
        try:
            async with asyncio.timeout(_LONGEST_WAIT_S):
                await self._free.acquire()
        except TimeoutError as error:
            raise Refused(
                "too_busy",
                "more requests come in than can be taken at present; send this one again",
                retry_after=_RETRY_AFTER,
            ) from error
        try:
            yield
        finally:
            self._free.release()
