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

from redis.exceptions import ResponseError

from .health import Health
from .loop import Loop, each
from .partition import Partition
from .server import Client, is_missing_group

__all__ = ["Lease"]


class Lease:
    """Renews what this consumer holds in all partitions."""

    def __init__(
        self, client: Client, partitions: Callable[[], Iterable[Partition]], lease_s: float, health: Health
    ) -> None:
        self._client = client
        self._partitions = partitions
        self._every_s = lease_s / 3
        self._loop = Loop("lease renewal", health, longest_wait_s=self._every_s, alive_every_s=lease_s)

    @property
    def is_failing(self) -> bool:
        """Return whether the last renewal failed. What others hold may then be as late, and look expired."""
        return self._loop.error is not None

    async def run(self) -> None:
        """Renew, until cancelled."""
        while True:
            began = monotonic()
            with self._loop:
                await self.renew()
            # Counted from the beginning: what a renewal itself takes on a busy server is not put on top.
            await asyncio.sleep(self._loop.wait_s(normally=max(began + self._every_s - monotonic(), 0.0)))

    async def renew(self) -> None:
        """Renew everything once, and drop what other consumers own now."""
        await each(self._partitions(), self._renew)

    async def _renew(self, partition: Partition) -> None:
        async with partition.renewal:
            await self._renew_held(partition)

    async def _renew_held(self, partition: Partition) -> None:
        held = partition.tags.held()
        if not held:
            return
        try:
            lost = await partition.fenced(self._client, "renew_lease", held)
            # What was acknowledged while the renewal was under way is no longer pending, and not lost either.
            partition.lost([entry_id for entry_id in lost if partition.tags.holds(entry_id)])
        except ResponseError as error:
            if not is_missing_group(error):
                raise
            partition.lost(held)
