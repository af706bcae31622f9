"""Recovery: takes over the entries of consumers that have gone silent, oldest first.

An entry that has been idle for a lease has no living owner. A scan also sees those that have been for half of one, and
then the next scan comes when the first of them is due. If it sees none, nothing can be due within half a lease, except
what a worker hands back, which tells it (`lease.py`): so an idle stream is looked at twice a lease.

What becomes of each of them is decided in `trial.py`.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from .dead_letter import REASON_MAX_DELIVERIES, Burial
from .entry import decode_entry
from .keys import partition_for, stream_key
from .partition import Partition
from .server import Client, checked_id, is_missing_group, run_script
from .settings import RedisSettings
from .trial import Redelivery, Silent

__all__ = ["Claimed", "Found", "Reclaimer"]

log = logging.getLogger(__name__)

# How many silent entries one scan looks at. XPENDING's IDLE filter walks the list in the server, so this bounds the
# work.
_SCAN = 500

# An ID behind which there is nothing to read: reading one's own entries again would count as a delivery of each.
_AFTER_ALL = f"{2**64 - 1}-{2**64 - 2}"


class Claimed(NamedTuple):
    """An entry taken over, and how often it has been delivered, this time included."""

    entry_id: bytes
    fields: list[bytes]
    deliveries: int


class Found(NamedTuple):
    """A scan of a partition found this."""

    claimed: list[Claimed]
    more: bool
    """More entries could have been claimed, were there room for them."""
    worn: bool
    """Some are to be tried, alone."""
    poison: list[tuple[bytes, int]]
    """Entries that have failed their trials, and how often each has been delivered; `bury` them."""
    next_s: float
    """In how many seconds to look again: nothing that this scan did not see can have expired by then."""


class Reclaimer:
    """Takes over expired entries of one topic's partitions."""

    def __init__(self, client: Client, settings: RedisSettings) -> None:
        self._client = client
        self._settings = settings
        self._redelivery = Redelivery(settings)

    async def claim(self, partition: Partition, most: int) -> Found:
        """Take over at most `most` expired entries."""
        silent = await self._silent(partition)
        expired = silent.expired
        held = [partition.tags.deliveries(entry_id) - 1 for entry_id in partition.tags.held()] if expired else []
        fitting = self._redelivery.in_small_company(expired, held)
        claimed = await self._take(partition, fitting[:most])
        return Found(
            [Claimed(entry_id, fields, expired[entry_id] + 1) for entry_id, fields in claimed],
            more=len(fitting) > most,
            worn=bool(self._redelivery.to_try(expired)),
            poison=self._redelivery.poison(expired),
            next_s=self._redelivery.until_next(silent),
        )

    async def claim_one_for_trial(self, partition: Partition) -> Claimed | None:
        """Claim the oldest expired entry that needs a trial, for a worker that is clear."""
        expired = (await self._silent(partition)).expired
        for entry_id, fields in await self._take(partition, self._redelivery.to_try(expired)[:1]):
            deliveries = expired[entry_id] + 1
            log.warning(
                "trial.begun stream=%s entry=%s delivery=%d of %d",
                partition.stream.decode(), entry_id.decode(), deliveries, self._settings.max_deliveries,
            )  # fmt: skip
            return Claimed(entry_id, fields, deliveries)
        return None

    async def withdraw(self, partition: Partition, entry_id: bytes) -> None:
        """Take back the count of the current delivery. Its worker is not alone with the entry any longer."""
        before = partition.tags.deliveries(entry_id) - 1
        await partition.fenced(self._client, "hand_back", [entry_id], 0, before)

    async def claim_unread(self, partition: Partition) -> list[Claimed]:
        """Take what the server has handed to this consumer in a reply that never arrived.

        Only while no read is under way: otherwise what is on the wire now would look lost. An entry that was claimed to
        be tried is handed back, as no agent has seen it and this worker may not be clear any longer.
        """
        rows = await self._own(partition)
        unread = {row[0]: int(row[3]) for row in rows if not partition.tags.holds(row[0])}
        claimed = []
        for deliveries in set(unread.values()):
            entry_ids = [entry_id for entry_id, count in unread.items() if count == deliveries]
            if self._redelivery.was_trial(deliveries):
                before = self._redelivery.without_trial(deliveries)
                await partition.fenced(self._client, "hand_back", entry_ids, self._redelivery.lease_ms + 1, before)
                continue
            taken = await self._take(partition, entry_ids, min_idle_ms=0, deliveries=deliveries)
            claimed += [Claimed(entry_id, fields, deliveries) for entry_id, fields in taken]
        return sorted(claimed, key=lambda entry: list(unread).index(entry.entry_id))

    async def count_in(self, partition: Partition) -> None:
        """Register this consumer in its group on the server, as heard of just now.

        A read of new entries does so by itself on Valkey and from Redis 7.2. Before that it does when it finds some,
        and a worker for whom nothing comes is none. A read of one's own entries does everywhere.
        """
        read = ("XREADGROUP", "GROUP", partition.group, partition.consumer, "COUNT", 1)
        await self._client.execute_command(*read, "STREAMS", partition.stream, _AFTER_ALL)

    async def remove_silent_consumers(self, partition: Partition) -> None:
        """Forget consumers that hold nothing and have not been heard of for ten leases."""
        ten_leases_ms = self._redelivery.lease_ms * 10
        await run_script(self._client, "remove_consumers", partition.stream, partition.group, "", ten_leases_ms)

    async def _silent(self, partition: Partition) -> Silent:
        rows = await self._pending(partition, "IDLE", str(self._redelivery.ahead_ms), "-", "+", _SCAN)
        return self._redelivery.silent(rows, partition.tags.holds)

    async def _own(self, partition: Partition) -> list[Any]:
        """All that is pending for this consumer, which may be more than one look shows."""
        rows: list[Any] = []
        begin = "-"
        while True:
            page = await self._pending(partition, begin, "+", _SCAN, partition.consumer)
            rows += page
            if len(page) < _SCAN:
                return rows
            begin = f"({page[-1][0].decode()}"

    async def _pending(self, partition: Partition, *args: str | int) -> list[Any]:
        try:
            rows: list[Any] = await self._client.execute_command("XPENDING", partition.stream, partition.group, *args)
        except ResponseError as error:
            if is_missing_group(error):
                return []
            raise
        return rows

    async def _take(
        self,
        partition: Partition,
        entry_ids: list[bytes],
        *,
        min_idle_ms: int | None = None,
        deliveries: int | None = None,
    ) -> list[tuple[bytes, list[bytes]]]:
        """Claim entries; `deliveries` is the count to record, if this is not one more."""
        if not entry_ids:
            return []
        idle = self._redelivery.lease_ms if min_idle_ms is None else min_idle_ms
        claim = ("XCLAIM", partition.stream, partition.group, partition.consumer, idle)
        recorded = () if deliveries is None else ("RETRYCOUNT", deliveries)
        rows = await self._client.execute_command(*claim, *entry_ids, *recorded)
        taken = [(row[0], row[1]) for row in rows if row is not None and row[1] is not None]
        if deliveries is not None:
            log.info("claim.unread stream=%s entries=%d", partition.stream.decode(), len(taken))
        elif taken:
            log.info("claim.expired stream=%s entries=%d", partition.stream.decode(), len(taken))
        if len(taken) < len(rows):
            # Redis 6.2 reports entries that were deleted from the stream as nil, and keeps them pending for ever.
            gone = set(entry_ids) - {entry_id for entry_id, _ in taken}
            await partition.fenced(self._client, "acknowledge", list(gone))
        return taken

    async def bury(self, partition: Partition, entry_id: bytes, deliveries: int) -> None:
        """Write the dead letter, then acknowledge. A crash in between repeats the dead letter, and loses nothing."""
        taken = await self._take(partition, [entry_id])
        for _, fields in taken:
            letter = Burial(
                topic=partition.tp.topic,
                group=partition.group,
                entry_id=entry_id.decode(),
                reason=REASON_MAX_DELIVERIES,
                error=f"delivered {deliveries} times, at last alone, and never acknowledged: it may kill its worker",
                deliveries=deliveries,
            )
            headers = [part for name, value in letter.headers().items() for part in (f"h:{name}".encode(), value)]
            key = decode_entry(entry_id, fields).key
            written = await self._client.execute_command("XADD", self._dead_letter_stream(key), "*", *fields, *headers)
            checked_id(written)
            await partition.fenced(self._client, "acknowledge", [entry_id])
            log.error(
                "entry.buried stream=%s group=%s entry=%s deliveries=%d",
                partition.stream.decode(), partition.group, entry_id.decode(), deliveries,
            )  # fmt: skip

    def _dead_letter_stream(self, key: bytes | None) -> str:
        topic = self._settings.dead_letter_topic
        partitions = self._settings.partitions.get(topic, 1)
        return stream_key(topic, partition_for(key or b"", partitions), partitions, self._settings.prefix)
