"""Group commit in which one organization's locked counter does not hold up the others.

A batch locks the counters of all its organizations in one transaction. Usually a lock is had within milliseconds, and
waiting for it is cheap and fair. But a counter may be locked for minutes, by an operator's transaction, say. So

    together ──a lock takes longer than a moment──▶ the same batch without those that are locked
                                                       └─ these ──▶ alone: a batch for each such organization
                                                                       └─ longer still, or too many ──▶ postponed

While an organization has a lane of its own, what comes for it joins that lane, behind what waits there. Those who wait
in lanes hold an agent each and each lane a connection, and both are what the others need: so few may wait, and not for
long. Whoever may not is postponed, which costs no attempt.

Every batch is one transaction, whichever way it takes. If the process dies, it is committed whole or not at all, and
the broker delivers again; `admit` and `settle` say why that is harmless.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Generic, TypeVar

from consumers.quota.ledger import Locked
from infra.errors import Postponed
from streams.delivery.batching import Batcher

T = TypeVar("T")
R = TypeVar("R")

# Longer than a transaction of any worker takes under load; the others lose so much, once for each lane that is opened.
_MOMENT: Final = timedelta(milliseconds=200)
# Well within the stage's timeout, which would count as a failed attempt.
_LONGEST_WAIT: Final = timedelta(seconds=5)
# Lanes that wait at the same time: each holds one of the worker's connections.
_MOST_LANES: Final = 3
_PAUSE_S: Final = (5.0, 15.0)


@dataclass
class _Lane(Generic[T, R]):
    """One organization's own batches, and how many wait there."""

    batcher: Batcher[T, R | Locked]
    waiting: int = 0


class Lanes(Generic[T, R]):
    """Runs submitted items in batches.

    Args:
        patient: handles a batch; raises Locked, with nothing done, if a lock took longer than it is given.
        free: handles what it can without waiting for a lock, and hands back Locked for every other item.
        owner: whose counter an item needs.
        max_size: items in one batch at most; also how many agents submit, half of which may wait in lanes.
        timeout_s: longest one batch may take.
    """

    def __init__(
        self,
        patient: Callable[[Sequence[T], timedelta], Awaitable[Sequence[R]]],
        free: Callable[[Sequence[T]], Awaitable[Sequence[R | Locked]]],
        *,
        owner: Callable[[T], str],
        max_size: int,
        timeout_s: float,
    ) -> None:
        self._patient = patient
        self._free = free
        self._owner = owner
        self._max_size = max_size
        self._timeout_s = timeout_s
        self._together: Batcher[T, R | Locked] = Batcher(self._run_together, max_size=max_size, timeout_s=timeout_s)
        self._lanes: dict[str, _Lane[T, R]] = {}
        self._running = 0

    async def submit(self, item: T) -> R:
        """Return the item's result.

        Raises:
            Postponed: its organization's counter is locked for longer than may be waited for here.
            Exception: what handling it raised; see `Batcher`.
        """
        owner = self._owner(item)
        result = Locked("others wait for it") if owner in self._lanes else await self._together.submit(item)
        if isinstance(result, Locked):
            result = await self._alone(owner, item)
        if isinstance(result, Locked):
            message = f"organization {owner}: its counter in quota_usage is locked by another transaction (pg_locks)"
            raise Postponed(message, delay=timedelta(seconds=random.uniform(*_PAUSE_S))) from result
        return result

    async def _run_together(self, items: Sequence[T]) -> Sequence[R | Locked]:
        try:
            return await self._patient(items, _MOMENT)
        except Locked:
            return await self._free(items)

    async def _alone(self, owner: str, item: T) -> R | Locked:
        if 2 * sum(lane.waiting for lane in self._lanes.values()) >= self._max_size:
            return Locked("too many wait already")
        lane = self._lanes.get(owner)
        if lane is None:
            batcher = Batcher(self._run_alone, max_size=self._max_size, timeout_s=self._timeout_s)
            lane = self._lanes[owner] = _Lane(batcher)
        lane.waiting += 1
        try:
            return await lane.batcher.submit(item)
        finally:
            lane.waiting -= 1
            if not lane.waiting:
                del self._lanes[owner]

    async def _run_alone(self, items: Sequence[T]) -> Sequence[R | Locked]:
        # Handed back rather than raised: the batcher would try one by one what fails, and each would wait anew.
        if self._running == _MOST_LANES:
            return [Locked("other organizations are waited for")] * len(items)
        self._running += 1
        try:
            return await self._patient(items, _LONGEST_WAIT)
        except Locked as locked:
            return [locked] * len(items)
        finally:
            self._running -= 1
