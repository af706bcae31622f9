"""Group commit in which one organization's locked counter does not hold up the others.

A batch locks the counters of all its organizations in one transaction. Usually a lock is had within milliseconds, and
waiting for it is cheap and fair. But a counter may be locked for minutes, by an operator's transaction, say. So

    together ──a lock takes longer than a moment──▶ the same batch without those that are locked
                                                       └─ these ──▶ postponed

What comes for such an organization in the next seconds is postponed at once, so that the others lose a moment now and
then, not with each batch. To be postponed costs no attempt; who asked first may then be admitted last.

Every batch is one transaction, whichever way it takes. If the process dies, it is committed whole or not at all, and
the broker delivers again; `admit` and `settle` say why that is harmless.
"""

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, Generic, TypeVar

from consumers.quota.ledger import Locked
from infra.errors import Postponed
from streams.delivery.batching import Batcher

T = TypeVar("T")
R = TypeVar("R")

# Longer than a transaction of any worker takes under load.
_MOMENT: Final = timedelta(milliseconds=500)
# A counter that was found locked is left alone for so long.
_REST_S: Final = 5.0
_PAUSE_S: Final = (5.0, 15.0)


class CounterBatches(Generic[T, R]):
    """Runs submitted items in batches.

    Args:
        patient: handles a batch; raises Locked, with nothing done, if a lock took longer than it is given.
        free: handles what it can without waiting for a lock, and hands back Locked for every other item.
        owner: whose counter an item needs.
        max_size: items in one batch at most.
        timeout_s: longest one batch may take.
        seconds: a clock that is never set.
    """

    def __init__(
        self,
        patient: Callable[[Sequence[T], timedelta], Awaitable[Sequence[R]]],
        free: Callable[[Sequence[T]], Awaitable[Sequence[R | Locked]]],
        *,
        owner: Callable[[T], str],
        max_size: int,
        timeout_s: float,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patient = patient
        self._free = free
        self._owner = owner
        self._batcher: Batcher[T, R | Locked] = Batcher(
            self._run, max_size=max_size, timeout_s=timeout_s, name=getattr(patient, "__qualname__", None)
        )
        self._seconds = seconds
        self._rest_until: dict[str, float] = {}

    async def submit(self, item: T) -> R:
        """Return the item's result.

        Raises:
            Postponed: another transaction keeps its organization's counter locked.
            Exception: what handling it raised; see `Batcher`.
        """
        owner = self._owner(item)
        if self._rest_until.get(owner, 0.0) > self._seconds():
            raise _postponed(owner)
        result = await self._batcher.submit(item)
        if isinstance(result, Locked):
            self._let_rest(owner)
            raise _postponed(owner) from result
        return result

    async def _run(self, items: Sequence[T]) -> Sequence[R | Locked]:
        try:
            return await self._patient(items, _MOMENT)
        except Locked:
            return await self._free(items)

    def _let_rest(self, owner: str) -> None:
        now = self._seconds()
        self._rest_until = {name: until for name, until in self._rest_until.items() if until > now}
        self._rest_until[owner] = now + _REST_S


def _postponed(owner: str) -> Postponed:
    message = f"organization {owner}: its counter in quota_usage is locked by another transaction (pg_locks)"
    return Postponed(message, delay=timedelta(seconds=random.uniform(*_PAUSE_S)))
