"""The lease: a consumer's time-limited hold on the entries it was given.

The server keeps, for each pending entry, its consumer and how long it has been idle. A worker that lives sets the idle
time of all that it holds back to zero three times a lease; an entry that stays idle for a whole lease belongs to
whoever claims it. So a worker keeps its entries however long an agent takes, and a dead one loses them within one
lease.

The renewal is fenced: a script renews only what this consumer still owns. Without the fence, a worker that was stopped
for a minute and wakes would take back entries that others are processing. What it lost is dropped here, and its late
acknowledgement is refused by the same fence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic

from .health import Health
from .partition import Partition
from .server import AWAY, Backoff, Client, RedisError, is_missing_group

__all__ = ["Lease"]

_LOOP = "lease renewal"


class Lease:
    """Renews what this consumer holds in all partitions."""

    def __init__(
        self, client: Client, partitions: Callable[[], Iterable[Partition]], lease_s: float, health: Health
    ) -> None:
        self._client = client
        self._partitions = partitions
        self._every_s = lease_s / 3
        self._health = health
        health.expect(_LOOP, lease_s)

    async def run(self) -> None:
        """Renew, until cancelled."""
        backoff = Backoff()
        while True:
            began = monotonic()
            try:
                await self.renew()
            except (*AWAY, RedisError) as error:
                self._health.failing(_LOOP, error)
                await asyncio.sleep(min(backoff.wait(), self._every_s))
            else:
                self._health.alive(_LOOP)
                backoff.reset()
                # Counted from the beginning: what a renewal itself takes on a busy server is not put on top.
                await asyncio.sleep(max(began + self._every_s - monotonic(), 0.0))

    async def renew(self) -> None:
        """Renew everything once, and drop what other consumers own now."""
        for partition in self._partitions():
            held = partition.tags.held()
            if not held:
                continue
            try:
                for lost in await partition.fenced(self._client, "renew_lease", held):
                    # What was acknowledged while the renewal was under way is no longer pending, and not lost either.
                    partition.lost([entry_id for entry_id in lost if partition.tags.holds(entry_id)])
            except RedisError as error:
                if not is_missing_group(error):
                    raise
                partition.lost(held)
