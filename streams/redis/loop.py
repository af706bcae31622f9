"""Every background loop handles a failure alike: it logs, waits, and tries again.

No error of the server may end a worker, whichever it is and wherever it comes, also in the middle of recovering from
another one. So a loop does its work in *rounds* that may fail at any line:

    while True:
        with self._loop:
            await self.renew()
        await asyncio.sleep(self._loop.wait_s(normally=5.0))

What a failure leaves to be repaired is kept in plain fields, which the next round looks at. Nothing is repaired in a
handler of errors, where nothing would catch the next error.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import TypeVar

from redis.exceptions import RedisError

from .health import Health

__all__ = ["Backoff", "Loop", "Patience", "each"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_EARLY_BY_CHANCE = 2
_LONGEST_UNASKED_S = 0.5  # an entry of a server that does not wait is read within this
_LONGEST_S = 2.0  # a server that is back is noticed within this


class Backoff:
    """Growing, jittered waits between attempts; `reset` after a success."""

    def __init__(self, first: float = 0.05, most: float = _LONGEST_S) -> None:
        self._first, self._most = min(first, most), most
        self._next = self._first

    def reset(self) -> None:
        """Begin small again."""
        self._next = self._first

    def wait(self) -> float:
        """Seconds to wait before the next attempt. Jittered, so that a fleet does not come back in step."""
        wait, self._next = self._next, min(self._next * 2, self._most)
        return wait * random.uniform(0.5, 1.0)


class Loop:
    """A background loop swallows the failure of a round.

    It is a context, for a whole loop or a part that may fail alone.

    Attributes:
        error: why the last round failed; None if it did not.
    """

    def __init__(
        self, name: str, health: Health, *, longest_wait_s: float = _LONGEST_S, alive_every_s: float | None = None
    ) -> None:
        """Say nothing yet.

        Args:
            name: what the loop does, such as `lease renewal`; `health()` and the log call it so.
            health: told of each failure, and of the next success.
            longest_wait_s: for a loop that must not be late. Never more than two seconds.
            alive_every_s: a round comes to its end at least so often, or the loop stands still.
        """
        self.name = name
        self.error: Exception | None = None
        self._health = health
        self._backoff = Backoff(most=min(longest_wait_s, _LONGEST_S))
        if alive_every_s is not None:
            health.expect(name, alive_every_s)

    def wait_s(self, normally: float = 0.0) -> float:
        """Return the seconds until the next round. They grow from failure to failure, and are few after a success."""
        return normally if self.error is None else self._backoff.wait()

    def end(self) -> None:
        """Say that the loop has ended as it should."""
        self._health.forget(self.name)

    def __enter__(self) -> None:
        """Begin a round."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """End the round. Any error ends here but what ends the task itself, such as its cancellation."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # redis-py 8.1 may swallow the cancellation, or make another error of it. A loop that went on would hold up
            # the stop for ever; `test_a_loop_ends_though_its_work_swallowed_the_cancellation`.
            raise asyncio.CancelledError from error
        if error is None:
            self._succeeded()
        elif isinstance(error, Exception):
            self._failed(error)
            return True
        return False

    def _succeeded(self) -> None:
        if self.error is not None:
            log.info("loop.resumed loop=%r", self.name)
            self.error = None
            self._backoff.reset()
        self._health.alive(self.name)

    def _failed(self, error: Exception) -> None:
        if self.error is None:  # not with each attempt that follows
            expected = isinstance(error, (RedisError, OSError))
            log.warning(
                "loop.failed loop=%r error=%s: %s", self.name, type(error).__name__, error,
                exc_info=None if expected else error,
            )  # fmt: skip
        # Without its traceback, which would keep all that the round held in memory.
        self.error = error.with_traceback(None)
        self._health.failing(self.name, error)


class Patience:
    """A read that was to wait, and was answered at once, is waited for here.

    Some proxies and services pass on no `BLOCK`. A loop that asked them again at once would send thousands of commands
    a second, each of which may be billed. Two such answers in a row are nothing: another worker may end a read.
    """

    def __init__(self, what: str) -> None:
        """Begin with as much trust as anybody deserves.

        Args:
            what: the read, for the log.
        """
        self._what = what
        self._early = 0
        self._backoff = Backoff(most=_LONGEST_UNASKED_S)

    async def after(self, *, asked_s: float, took_s: float) -> None:
        """Wait, unless a read that brought nothing has waited itself."""
        if took_s >= asked_s / 2:
            self._early = 0
            self._backoff.reset()
            return
        self._early += 1
        if self._early == _EARLY_BY_CHANCE + 1:
            log.warning("block.ignored read=%r asked_s=%.3f took_s=%.3f", self._what, asked_s, took_s)
        if self._early > _EARLY_BY_CHANCE:
            await asyncio.sleep(min(self._backoff.wait(), asked_s - took_s))


async def each(items: Iterable[T], work: Callable[[T], Awaitable[object]]) -> None:
    """Do the work for each item, and raise the first failure in the end.

    A stream of the wrong type, or on a node that is away, must not keep the others from being renewed, acknowledged or
    trimmed.
    """
    failure: Exception | None = None
    for item in items:
        try:
            await work(item)
        except Exception as error:  # noqa: BLE001 - raised below
            failure = failure or error
    if failure is not None:
        raise failure
