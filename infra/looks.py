"""Whoever asks while something slow is looked at, or just after, gets the same answer."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedLook(Generic[T]):
    """Callers share the latest look at something that may be slow or stall.

    Args:
        look: gets the answer.
        fresh_s: an answer is shared for so long after its look began. Longer: fewer looks; shorter: newer answers.
        longest_s: how long a caller waits.
    """

    def __init__(self, look: Callable[[], Awaitable[T]], *, fresh_s: float, longest_s: float) -> None:
        self._ask = look
        self._fresh_s = fresh_s
        self._longest_s = longest_s
        self._look: asyncio.Future[T] | None = None
        self._began = 0.0

    async def latest(self) -> T:
        """Return the answer, or raise what the look raised.

        Raises:
            TimeoutError: the look takes longer than a caller waits. It goes on, and the next caller waits for it.
        """
        if self._look is None or (self._look.done() and monotonic() - self._began >= self._fresh_s):
            self._look, self._began = asyncio.ensure_future(self._ask()), monotonic()
        # A driver that is cancelled may wait for a stalled server as well, so the look is left to end by itself.
        done, _ = await asyncio.wait({self._look}, timeout=self._longest_s)
        if not done:
            raise TimeoutError(f"no answer in {self._longest_s:g} s")
        return self._look.result()

    async def close(self) -> None:
        """Cancel a look under way, and wait no longer for it than a caller does."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait({self._look}, timeout=self._longest_s)
