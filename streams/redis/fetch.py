"""Reads one topic and hands its entries to the agents.

This replaces Faust's own fetch loop, which starts four tasks for every event. Each topic has its own loop, so one that
is held back does not hold back others. A round takes over what dead consumers left, if a scan is due, and then reads
new entries; both ask for no more than the agents have room for. While an entry is on trial (`trial.py`), no round
hands out anything.

A round may fail anywhere. What it leaves to be repaired is a field each: `_unread_due`, `_next_scan`, `_next_join`. The
next round looks at them first, and joining and reclaiming may fail without keeping it from reading: a server whose
memory is full creates no group, and still hands out what is in it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic

from .channels import Channels
from .groups import create_groups
from .health import Health
from .layout import ForeignStreams
from .loop import Loop, Patience, each
from .partition import Partition
from .reclaim import Claimed, Reclaimer
from .server import AWAY, Client, close, is_missing_group
from .settings import RedisSettings
from .trial import Trial
from .unblock import Unblock
from .window import Window

__all__ = ["TopicReader", "Worker"]

# While there is no room, when to look again: at once, since an agent that is handed an event is often done with it in
# the next round of the event loop; then less and less often, so that a worker full of slow agents costs nothing.
_PAUSES_S = (0.0, 0.0, 0.001, 0.001, 0.002, 0.005, 0.01, 0.02)

# Every how many leases to sweep. Consumers that are gone and streams that no worker reads do no harm. Fewer than the
# ten leases after which others forget a consumer.
_SWEEP_LEASES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """The readers of one worker share this.

    Attributes:
        channels: where entries go.
        trial: the worker's one slot for an entry that is tried.
        most_queued: how many entries of one topic may wait for an agent.
        groups: the groups that must see every entry of a topic.
        linger_s: for how long new entries of a topic may wait for company.
        renewals_fail: whether leases are not renewed now; those of others may be as late.
        hears_of_hand_backs: whether other workers' readers need not be looked after by a scan.
        clock: seconds that only move forward.
    """

    settings: RedisSettings
    health: Health
    channels: Channels
    trial: Trial
    most_queued: int
    groups: Callable[[str], Iterable[str]]
    linger_s: Callable[[str], float]
    renewals_fail: Callable[[], bool]
    hears_of_hand_backs: Callable[[], bool]
    clock: Callable[[], float] = monotonic


class TopicReader:
    """The fetch loop of one topic."""

    def __init__(
        self, worker: Worker, partitions: Sequence[Partition], client: Client, unblock: Unblock, foreign: ForeignStreams
    ) -> None:
        """Read nothing yet.

        Args:
            worker: what this reader shares with the others.
            partitions: of the topic, all of them or those that one node of a Cluster has.
            client: a client of its own, whose reads wait on the server.
            unblock: ends such a read.
            foreign: looks for streams of the topic that no worker reads.
        """
        self._partitions = {partition.stream: partition for partition in partitions}
        self._tps = [partition.tp for partition in partitions]
        self._topic = topic = partitions[0].tp.topic
        self._group, self._name = partitions[0].group, partitions[0].consumer
        self._client = client
        self._unblock = unblock
        self._foreign = foreign
        self._worker = worker
        self._settings = settings = worker.settings
        self._clock = worker.clock
        self._channels = worker.channels
        self._window = Window(worker.most_queued, worker.clock)
        self._reclaimer = Reclaimer(client, settings)
        self._trial = worker.trial
        self._trial.join(self)
        alive_every_s = (settings.block + settings.timeout).total_seconds()
        self._loop = Loop(f"fetching {topic}", worker.health, alive_every_s=alive_every_s)
        self._joining = Loop(f"joining the group of {topic}", worker.health)
        self._reclaiming = Loop(f"reclaiming {topic}", worker.health)
        self._patience = Patience(f"of {topic}")
        self._ended = False
        self._next_join = 0.0
        self._unread_due = math.inf
        self._next_scan = self._not_before = 0.0
        self._told = False
        self._next_sweep = 0.0
        self._pauses = 0

    async def run(self) -> None:
        """Read until this is to end."""
        while not self._ended:
            with self._loop:
                await self._round()
            if self._loop.error is not None:
                await asyncio.sleep(self._loop.wait_s())

    def end(self) -> None:
        """Begin no round any more."""
        self._ended = True

    async def close(self) -> None:
        """Close the connection, when nothing is read any more."""
        self._trial.leave(self)
        for part in (self._loop, self._joining, self._reclaiming):
            part.end()
        await close(self._client)

    def look_now(self) -> None:
        """Look for expired entries in the next round: another worker has handed some back."""
        self._told = True
        self._next_scan = min(self._next_scan, self._not_before)

    async def unblock(self) -> None:
        """End a blocking read on the server, so that stopping need not wait for it."""
        await self._unblock.end_read()

    def _distrust(self, error: Exception) -> None:
        """After a round, or a part of it, that failed: note what may be wrong now."""
        self._unread_due = 0.0  # the reply that got lost may have carried entries
        self._unblock.forget()
        if is_missing_group(error):
            self._next_join = 0.0
        if self._trial.is_clear(self):
            self._trial.end(self)  # what was claimed to be tried, if anything was, is unread now
        # When the server has been away, every lease looks expired. Wait until living owners have had time to renew.
        if isinstance(error, AWAY) or self._worker.renewals_fail():
            self._next_scan = self._not_before = self._clock() + self._settings.lease.total_seconds() / 2

    async def _round(self) -> None:
        if self._loop.error is not None:
            self._distrust(self._loop.error)
        if self._clock() >= self._next_join:
            await self._join()
        if self._trial.stands(self):
            await asyncio.sleep(_PAUSES_S[-1])
            return
        if self._trial.is_overdue(self):
            await self._end_trial()
        queued, idle_agents = self._channels.demand(self._tps)
        delivered = sum(partition.tags.delivered_total for partition in self._partitions.values())
        held = sum(len(partition.tags) for partition in self._partitions.values())
        self._window.observe(delivered - queued)
        room = min(self._window.room(queued, idle_agents), self._settings.max_unacknowledged - held)
        most = self._channels.most(self._tps)
        if most is not None:
            room = min(room, most - queued)
        if most == 0:
            self._trial.end(self)  # this worker tries nothing now, and another may
        if room <= 0:
            await asyncio.sleep(_PAUSES_S[min(self._pauses, len(_PAUSES_S) - 1)])
            self._pauses += 1
            return
        self._pauses = 0
        if self._trial.is_clear(self):
            await self._try_one()
            return
        if self._clock() >= min(self._unread_due, self._next_scan) and await self._reclaim(room):
            return
        await self._read(room)

    async def _join(self) -> None:
        """Create the groups that do not exist. When that fails, the group may be there all the same."""
        groups = self._worker.groups(self._topic)
        with self._joining:
            await each(self._partitions, lambda stream: create_groups(self._client, stream, groups))
        if self._joining.error is not None:
            self._unblock.forget()
        self._next_sweep = 0.0  # a new group does not know this consumer
        self._next_join = self._clock() + self._joining.wait_s(normally=math.inf)

    async def _reclaim(self, room: int) -> bool:
        """Take over what this worker was handed in vain, or what has expired; True when no new ones are to be read."""
        enough = False
        with self._reclaiming:
            if self._unread_due < math.inf:
                await self._claim_unread()
            else:
                enough = await self._scan(room)
        if self._reclaiming.error is not None:
            self._distrust(self._reclaiming.error)
            again = self._clock() + self._reclaiming.wait_s()
            self._unread_due, self._next_scan = again, max(self._next_scan, again)
            self._not_before = max(self._not_before, again)
        return enough

    async def _claim_unread(self) -> None:
        for partition in self._partitions.values():
            await self._deliver_claimed(partition, await self._reclaimer.claim_unread(partition))
        self._unread_due = math.inf

    async def _scan(self, room: int) -> bool:
        """Take over expired entries; True when no new ones are to be read now: more of these wait, or a trial."""
        self._told = False
        more, next_s = False, math.inf if self._worker.hears_of_hand_backs() else self._settings.scan.total_seconds()
        poison: list[tuple[Partition, bytes, int]] = []
        for partition in self._partitions.values():
            found = await self._reclaimer.claim(partition, room)
            more, next_s = more or found.more, min(next_s, found.next_s)
            await self._deliver_claimed(partition, found.claimed)
            poison += [(partition, *one) for one in found.poison]
            if found.worn and not found.claimed:
                self._trial.apply(self)
        # Last: dead letters that cannot be written must not keep others from being claimed.
        await each(poison, lambda one: self._reclaimer.bury(*one))
        if more:
            await asyncio.sleep(_PAUSES_S[-1])
        else:
            self._next_scan = self._not_before if self._told else self._clock() + next_s
            await self._sweep()
        return more or self._trial.stands(self)

    async def _try_one(self) -> None:
        """Hand over one entry to be tried, alone; read again if there is none."""
        for partition in self._partitions.values():
            claimed = await self._reclaimer.claim_one_for_trial(partition)
            if claimed is not None:
                self._trial.begin(partition, claimed.entry_id)
                await self._deliver_claimed(partition, [claimed])
                return
        self._trial.end(self)

    async def _end_trial(self) -> None:
        """Read again, though agents have not finished or the entry on trial is not done."""
        on_trial = self._trial.withdraw()
        if on_trial is not None:
            await self._reclaimer.withdraw(*on_trial)
        self._trial.end(self)

    async def _sweep(self) -> None:
        """Now and then be counted, forget consumers that are gone, and look for streams that no worker reads.

        Each worker has a name of its own, and names would pile up.
        """
        if self._clock() >= self._next_sweep:
            self._next_sweep = self._clock() + _SWEEP_LEASES * self._settings.lease.total_seconds()
            for partition in self._partitions.values():
                await self._reclaimer.count_in(partition)
                await self._reclaimer.remove_silent_consumers(partition)
            await self._foreign.look()

    async def _read(self, room: int) -> None:
        # Who cannot be unblocked looks itself whether something was handed back.
        longest = self._settings.block.total_seconds()
        if not await self._unblock.is_possible():
            longest = min(longest, self._settings.scan.total_seconds())
        count = max(room // len(self._partitions), 1)
        wait_s = min(longest, max(min(self._unread_due, self._next_scan) - self._clock(), 0.001))
        streams = list(self._partitions)
        began = self._clock()
        reply = await self._client.execute_command(
            "XREADGROUP", "GROUP", self._group, self._name, "COUNT", count, "BLOCK", int(wait_s * 1000) or 1,
            "STREAMS", *streams, *[">"] * len(streams),
        )  # fmt: skip
        brought = [(stream, entries) for stream, entries in reply or () if entries]
        if not brought:
            await self._patience.after(asked_s=wait_s, took_s=self._clock() - began)
        for stream, entries in brought:
            await self._channels.deliver(self._partitions[stream], entries)
        linger_s = self._worker.linger_s(self._topic)
        if linger_s and brought and all(len(entries) < count for _, entries in brought):
            await asyncio.sleep(linger_s)  # that was all there is, and what comes meanwhile is read together

    async def _deliver_claimed(self, partition: Partition, claimed: Iterable[Claimed]) -> None:
        for entry in claimed:
            await self._channels.deliver(partition, [(entry.entry_id, entry.fields)], entry.deliveries)
