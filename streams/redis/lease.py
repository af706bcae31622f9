"""The lease: a consumer's time-limited hold on the entries it was given.

The server keeps, for each pending entry, its consumer and how long it has been idle. A worker that lives sets the idle
time of all that it holds back to zero three times a lease; an entry that stays idle for a whole lease belongs to
whoever claims it. So a worker keeps its entries however long an agent takes, and a dead one loses them within one
lease.

The renewal is fenced: a script renews only what this consumer still owns. Without the fence, a worker that was stopped
for a minute and wakes would take back entries that others are processing. What it lost is dropped here, and its late
acknowledgement is refused by the same fence.

A worker hands back what it has not begun with when it stops, and what an agent gives up because another worker may do
it. Others take it at once, without waiting for the lease to run out. They hear of it by a stream of one entry,
`<app>:handed-back`, on which each worker waits. So no worker looks for it every second on streams where nothing
happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from time import monotonic

from redis.exceptions import NoPermissionError, ResponseError

from .health import Health
from .loop import Loop, Patience, each
from .partition import Partition
from .server import Client, close, is_missing_group

__all__ = ["HandBacks", "Lease", "hand_back"]

log = logging.getLogger(__name__)


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


class HandBacks:
    """Tells the group's other workers of entries to take, and hears it from them."""

    def __init__(self, client: Client, waiting: Client, key: str, block: timedelta, health: Health) -> None:
        """Send nothing yet.

        Args:
            client: to tell with.
            waiting: a client of its own, whose commands may wait for `block`.
            key: of the stream.
            block: how long one command waits; the lease.
            health: where to say that it does not work.
        """
        self._client = client
        self._waiting = waiting
        self._key = key
        self._block_ms = int(block.total_seconds() * 1000)
        self._loop = Loop("hearing of what others hand back", health)
        self._patience = Patience("of what others hand back")
        self._stopped = False
        self._last = b"0-0"
        self._given: list[tuple[Partition, int]] = []
        self._giving: asyncio.Task[None] | None = None
        self.heard = False
        """Whether this worker would hear of it; if not, it must look by itself."""

    async def tell(self) -> None:
        """Have the others look now. If it fails they do within half a lease."""
        with contextlib.suppress(Exception):
            await self._client.execute_command("XADD", self._key, "MAXLEN", "1", "*", "handed", "back")

    def give(self, partition: Partition, tag: int) -> None:
        """Hand back one delivery, together with all that are given in the same moment. Returns at once."""
        self._given.append((partition, tag))
        if self._giving is None or self._giving.done():
            self._giving = asyncio.create_task(self._give(), name="hand back")

    async def _give(self) -> None:
        await asyncio.sleep(0)
        while self._given:
            given, self._given = self._given, []
            by_partition: dict[bytes, tuple[Partition, list[int]]] = {}
            for partition, tag in given:
                by_partition.setdefault(partition.stream, (partition, []))[1].append(tag)
            for partition, tags in by_partition.values():
                # A renewal that was under way would make them this worker's for another lease.
                async with partition.renewal:
                    entry_ids = [one for tag in tags if (one := partition.tags.entry_id(tag)) is not None]
                    await hand_back(self._client, partition, self._block_ms / 1000, entry_ids)
            await self.tell()

    async def run(self, look: Callable[[], Awaitable[None]]) -> None:
        """Call `look` whenever another worker tells, until cancelled. The last tell before may be told once more."""
        while not self._stopped:
            with self._loop:
                await self._listen(look)
            if self._loop.error is not None:
                self.heard = False
                await asyncio.sleep(self._loop.wait_s())

    async def _listen(self, look: Callable[[], Awaitable[None]]) -> None:
        # The first time it does not wait, but finds out whether it may and can.
        wait = ("BLOCK", self._block_ms) if self.heard else ()
        began = monotonic()
        try:
            reply = await self._waiting.execute_command("XREAD", *wait, "STREAMS", self._key, self._last)
        except NoPermissionError as error:
            # Not worth a red light: this worker looks by itself, as often as `scan` says.
            log.warning("hand_back.unheard error=%r", error)
            self.heard = False
            await asyncio.sleep(self._block_ms / 1000)
            return
        self.heard = True
        if reply:
            self._last = reply[0][1][-1][0]
            await look()
        elif wait:
            await self._patience.after(asked_s=self._block_ms / 1000, took_s=monotonic() - began)

    def stop(self) -> None:
        """Hear nothing any more."""
        self._stopped = True

    async def close(self) -> None:
        """Close the connection that waits."""
        await close(self._waiting)


async def hand_back(client: Client, partition: Partition, lease_s: float, entry_ids: Iterable[bytes]) -> int:
    """Let other workers take entries that this one holds; return their number.

    The deliveries are not counted: a worker that stops in order was not killed by what it held, and one restart after
    another must not make a dead letter of an entry that takes longer than the drain time.

    Args:
        client: to the server; if it is away, the leases run out without us.
        partition: whose entries they are.
        lease_s: entries that were idle for longer than this are anybody's.
        entry_ids: those to hand back.
    """
    idle_ms = int(lease_s * 1000) + 1
    tags = partition.tags
    by_count: dict[int, list[bytes]] = {}
    for entry_id in entry_ids:
        by_count.setdefault(tags.deliveries(entry_id) - 1, []).append(entry_id)
    for count, same in by_count.items():
        with contextlib.suppress(Exception):  # whatever the server answers, the lease runs out
            await partition.fenced(client, "hand_back", same, idle_ms, count)
        tags.lose(same)
    return sum(map(len, by_count.values()))
