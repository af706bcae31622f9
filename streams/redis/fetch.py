"""Reads one topic and hands its entries to the agents.

This replaces Faust's own fetch loop, which starts four tasks for every event. Each topic has its own loop, so one that
is held back does not hold back others. A round takes over what dead consumers left, if a scan is due, and then reads
new entries; both ask for no more than the agents have room for. While an entry is on trial (`trial.py`), no round
hands out anything.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from faust.types import ConsumerMessage

from .entry import decode_entry
from .foreign import ForeignStreams
from .partition import Partition
from .reclaim import Claimed, Reclaimer
from .server import AWAY, Backoff, Client, RedisError, close, forget_connections, is_missing_group
from .window import Window

if TYPE_CHECKING:
    from .consumer import Consumer

__all__ = ["TopicReader"]

log = logging.getLogger(__name__)

# While there is no room, when to look again: at once, since an agent that is handed an event is often done with it in
# the next round of the event loop; then less and less often, so that a worker full of slow agents costs nothing.
_PAUSES_S = (0.0, 0.0, 0.001, 0.001, 0.002, 0.005, 0.01, 0.02)

# Every how many leases to sweep: who is gone and what nobody reads is in nobody's way.
_SWEEP_LEASES = 4

_NO_TIMES = (None, None, None)  # when a message came in and went out, and what lies between: for Faust's sensors to set


class TopicReader:
    """The fetch loop of one topic."""

    def __init__(self, consumer: Consumer, topic: str, partitions: Sequence[Partition], client: Client) -> None:
        self._consumer = consumer
        self._topic = topic
        self._partitions = {partition.stream: partition for partition in partitions}
        self._tps = [partition.tp for partition in partitions]
        self._client = client
        settings = consumer.settings
        self._settings = settings
        self._window = Window(min(settings.prefetch, consumer.app.conf.stream_buffer_maxsize))
        self._reclaimer = Reclaimer(client, settings)
        self._trial = consumer.trial
        self._trial.join(self)
        self._foreign = ForeignStreams(client, topic, consumer.foreign_stream_keys(self._tps[0]))
        self._loop_name = f"fetching {topic}"
        self._next_scan = self._not_before = 0.0
        self._told = False
        self._next_sweep = 0.0
        self._pauses = 0
        self._unread = False
        self._client_id: int | None = None
        consumer.health.expect(self._loop_name, (settings.block + settings.timeout).total_seconds())

    async def run(self) -> None:
        """Read until the consumer stops reading."""
        backoff = Backoff()
        while self._consumer.reading:
            try:
                await self._round()
            except (*AWAY, RedisError) as error:
                await self._recover(error, backoff)
            else:
                backoff.reset()

    async def close(self) -> None:
        """Close the connection, when nothing is read any more."""
        self._trial.leave(self)
        self._consumer.health.forget(self._loop_name)
        await close(self._client)

    def look_now(self) -> None:
        """Look for expired entries in the next round: another worker has handed some back."""
        self._told = True
        self._next_scan = min(self._next_scan, self._not_before)

    async def unblock(self) -> None:
        """End a read that waits on the server, so that stopping need not wait for it."""
        if self._client_id is not None:
            await self._consumer.client.execute_command("CLIENT UNBLOCK", self._client_id)

    async def _recover(self, error: BaseException, backoff: Backoff) -> None:
        self._unread = True  # the reply that got lost may have carried entries
        self._client_id = None
        if self._trial.is_clear(self):
            self._trial.end(self)  # what was claimed to be tried, if anything was, is unread now
        if is_missing_group(error):
            for partition in self._partitions.values():
                await self._consumer.create_groups(partition)
            log.warning("group.recreated topic=%s at the beginning of the stream", self._topic)
            return
        self._consumer.health.failing(self._loop_name, error)
        log.warning("fetch.failed topic=%s error=%r", self._topic, error)
        await forget_connections(self._client, error)
        # When the server has been away, every lease looks expired. Wait until living owners have had time to renew.
        self._next_scan = self._not_before = monotonic() + self._settings.lease.total_seconds() / 2
        await asyncio.sleep(backoff.wait())

    async def _round(self) -> None:
        if self._trial.stands(self):
            self._consumer.health.alive(self._loop_name)
            await asyncio.sleep(_PAUSES_S[-1])
            return
        if self._trial.is_overdue(self):
            await self._end_trial()
        queued, idle_agents = self._consumer.channels.demand(self._tps)
        delivered = sum(partition.tags.delivered_total for partition in self._partitions.values())
        held = sum(len(partition.tags) for partition in self._partitions.values())
        self._window.observe(delivered - queued)
        room = min(self._window.room(queued, idle_agents), self._settings.max_unacknowledged - held)
        if room <= 0:
            self._consumer.health.alive(self._loop_name)
            await asyncio.sleep(_PAUSES_S[min(self._pauses, len(_PAUSES_S) - 1)])
            self._pauses += 1
            return
        self._pauses = 0
        if self._trial.is_clear(self):
            await self._try_one()
            return
        if self._unread:
            for partition in self._partitions.values():
                await self._deliver_claimed(partition, await self._reclaimer.claim_unread(partition))
            self._unread = False
        elif monotonic() >= self._next_scan and await self._scan(room):
            return
        await self._read(room)

    async def _scan(self, room: int) -> bool:
        """Take over expired entries; True when no new ones are to be read now: more of these wait, or a trial."""
        self._told = False
        more, next_s = False, math.inf if self._consumer.hand_backs.heard else self._settings.scan.total_seconds()
        for partition in self._partitions.values():
            found = await self._reclaimer.claim(partition, room)
            more, next_s = more or found.more, min(next_s, found.next_s)
            await self._deliver_claimed(partition, found.claimed)
            if found.worn and not found.claimed:
                self._trial.apply(self)
        if more:
            self._consumer.health.alive(self._loop_name)
            await asyncio.sleep(_PAUSES_S[-1])
        else:
            self._next_scan = self._not_before if self._told else monotonic() + next_s
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
        """Now and then look for streams that nobody reads, and forget consumers that are gone.

        Each worker has a name of its own, and names would pile up.
        """
        if monotonic() >= self._next_sweep:
            self._next_sweep = monotonic() + _SWEEP_LEASES * self._settings.lease.total_seconds()
            for partition in self._partitions.values():
                await self._reclaimer.remove_silent_consumers(partition)
            await self._foreign.look()

    async def _read(self, room: int) -> None:
        if self._client_id is None:
            self._client_id = await self._consumer.client_id(self._client)
        count = max(room // len(self._partitions), 1)
        # Who cannot be unblocked looks itself whether something was handed back.
        longest = self._settings.block.total_seconds()
        if self._client_id is None:
            longest = min(longest, self._settings.scan.total_seconds())
        wait_s = min(longest, max(self._next_scan - monotonic(), 0.001))
        streams = list(self._partitions)
        group, consumer = self._consumer.group, self._consumer.name
        reply = await self._client.execute_command(
            "XREADGROUP", "GROUP", group, consumer, "COUNT", count, "BLOCK", int(wait_s * 1000) or 1,
            "STREAMS", *streams, *[">"] * len(streams),
        )  # fmt: skip
        self._consumer.health.alive(self._loop_name)
        for stream, entries in reply or ():
            await self._deliver(self._partitions[stream], entries)

    async def _deliver_claimed(self, partition: Partition, claimed: Iterable[Claimed]) -> None:
        for entry in claimed:
            await self._deliver(partition, [(entry.entry_id, entry.fields)], entry.deliveries)

    async def _deliver(
        self, partition: Partition, entries: Sequence[tuple[bytes, list[bytes]]], deliveries: int = 1
    ) -> None:
        """Give each entry a tag and put it into the channels of all agents that read the topic."""
        deliver_tag = partition.tags.deliver
        tp = partition.tp
        messages = []
        for entry_id, fields in entries:
            tag = deliver_tag(entry_id, deliveries)
            if tag is None:
                continue
            key, value, headers, timestamp = decode_entry(entry_id, fields)
            sizes = len(key or b""), len(value or b"")
            # By position: this runs for every event, and names cost as much as the message.
            message = ConsumerMessage(
                *tp, tag, timestamp, 0, cast("Any", headers), key, value, None, *sizes, tp, *_NO_TIMES, 0
            )
            messages.append(message)
        await self._consumer.channels.put(tp, messages)
