"""Recovery: takes over the entries of consumers that have gone silent, oldest first.

An entry that has been idle for a lease has no living owner. Claiming it counts as a delivery; one that has had its last
delivery goes to the dead letters instead.

An entry that kills its worker drags its neighbours along: whatever that worker held counts one more delivery. So the
last allowed delivery is a trial, alone: one entry at a time for each topic and worker. The poison fails its trial and
becomes a dead letter; each neighbour passes its own. Other entries are read meanwhile: a trial may take an agent many
minutes, and a worker that holds one must not be deaf to everything else.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from .dead_letter import REASON_MAX_DELIVERIES, DeadLetter
from .entry import decode_entry
from .keys import partition_for, stream_key
from .partition import Partition
from .server import Client, is_missing_group, run_script
from .settings import RedisSettings

__all__ = ["Claimed", "Reclaimer"]

log = logging.getLogger(__name__)

# How many expired entries one scan looks at. XPENDING's IDLE filter walks the list in the server, so this bounds the
# work.
_SCAN = 500


class Claimed(NamedTuple):
    """An entry taken over, and how often it has been delivered, this time included."""

    entry_id: bytes
    fields: list[bytes]
    deliveries: int


class Reclaimer:
    """Takes over expired entries of one topic's partitions."""

    def __init__(self, client: Client, settings: RedisSettings) -> None:
        self._client = client
        self._settings = settings
        self._lease_ms = int(settings.lease.total_seconds() * 1000)
        self._trial: tuple[Partition, bytes] | None = None

    async def claim(self, partition: Partition, most: int) -> tuple[list[Claimed], bool]:
        """Take over at most `most` expired entries, and whether more of them wait."""
        if self.trial_ended:
            self._trial = None
        expired = await self._expired(partition)
        if not expired:
            return [], False
        limit = self._settings.max_deliveries
        for entry_id, deliveries in expired.items():
            if deliveries >= limit:
                await self._bury(partition, entry_id, deliveries)
        healthy = [entry_id for entry_id, deliveries in expired.items() if deliveries < limit - 1]
        chosen = healthy[:most]
        trial = [entry_id for entry_id, deliveries in expired.items() if deliveries == limit - 1]
        if not chosen and trial and most > 0 and self._trial is None:
            chosen = trial[:1]
            self._trial = (partition, chosen[0])
        # While one is on trial the others wait for its end, and nobody has to wait for them.
        waiting = len(healthy) > most or (bool(trial) and self._trial is None)
        claimed = await self._take(partition, chosen)
        return [Claimed(entry_id, fields, expired[entry_id] + 1) for entry_id, fields in claimed], waiting

    async def claim_unread(self, partition: Partition) -> list[Claimed]:
        """Take what the server has handed to this consumer in a reply that never arrived.

        Only while no read is under way: otherwise what is on the wire now would look lost.
        """
        rows = await self._pending(partition, "-", "+", _SCAN, partition.consumer)
        unread = {row[0]: int(row[3]) for row in rows if not partition.tags.holds(row[0])}
        claimed = await self._take(partition, list(unread), min_idle_ms=0, count=False)
        return [Claimed(entry_id, fields, unread[entry_id]) for entry_id, fields in claimed]

    async def remove_silent_consumers(self, partition: Partition) -> None:
        """Forget consumers that hold nothing and have not been heard of for ten leases."""
        await run_script(self._client, "remove_consumers", partition.stream, partition.group, "", self._lease_ms * 10)

    @property
    def on_trial(self) -> bool:
        """Whether this worker holds an entry that is on its last delivery."""
        return self._trial is not None and self._trial[0].tags.holds(self._trial[1])

    @property
    def trial_ended(self) -> bool:
        """Whether a trial has ended since the last scan, so that the next may begin."""
        return self._trial is not None and not self.on_trial

    async def _expired(self, partition: Partition) -> dict[bytes, int]:
        rows = await self._pending(partition, "IDLE", str(self._lease_ms), "-", "+", _SCAN)
        # What this consumer holds itself is only late to be renewed, perhaps because the loop was blocked.
        return {row[0]: int(row[3]) for row in rows if not partition.tags.holds(row[0])}

    async def _pending(self, partition: Partition, *args: str | int) -> list[Any]:
        try:
            rows: list[Any] = await self._client.execute_command("XPENDING", partition.stream, partition.group, *args)
        except ResponseError as error:
            if is_missing_group(error):
                return []
            raise
        return rows

    async def _take(
        self, partition: Partition, entry_ids: list[bytes], *, min_idle_ms: int | None = None, count: bool = True
    ) -> list[tuple[bytes, list[bytes]]]:
        if not entry_ids:
            return []
        idle = self._lease_ms if min_idle_ms is None else min_idle_ms
        claim = ("XCLAIM", partition.stream, partition.group, partition.consumer, idle)
        rows = await self._client.execute_command(*claim, *entry_ids)
        taken = [(row[0], row[1]) for row in rows if row is not None and row[1] is not None]
        if not count:
            log.info("claim.unread stream=%s entries=%d", partition.stream.decode(), len(taken))
        elif taken:
            log.info("claim.expired stream=%s entries=%d", partition.stream.decode(), len(taken))
        if len(taken) < len(rows):
            # Redis 6.2 reports entries that were deleted from the stream as nil, and keeps them pending for ever.
            gone = set(entry_ids) - {entry_id for entry_id, _ in taken}
            await partition.fenced(self._client, "acknowledge", list(gone))
        return taken

    async def _bury(self, partition: Partition, entry_id: bytes, deliveries: int) -> None:
        """Write the dead letter, then acknowledge: a crash in between repeats the dead letter, and loses nothing."""
        taken = await self._take(partition, [entry_id])
        for _, fields in taken:
            letter = DeadLetter(
                topic=partition.tp.topic,
                group=partition.group,
                entry_id=entry_id.decode(),
                reason=REASON_MAX_DELIVERIES,
                error=f"delivered {deliveries} times and never acknowledged: it may kill its worker",
                deliveries=deliveries,
            )
            headers = [part for name, value in letter.headers().items() for part in (f"h:{name}".encode(), value)]
            key = decode_entry(entry_id, fields).key
            await self._client.execute_command("XADD", self._dead_letter_stream(key), "*", *fields, *headers)
            await partition.fenced(self._client, "acknowledge", [entry_id])
            log.error(
                "entry.dead stream=%s group=%s entry=%s deliveries=%d",
                partition.stream.decode(), partition.group, entry_id.decode(), deliveries,
            )  # fmt: skip

    def _dead_letter_stream(self, key: bytes | None) -> str:
        topic = self._settings.dead_letter_topic
        partitions = self._settings.partitions.get(topic, 1)
        return stream_key(topic, partition_for(key or b"", partitions), partitions, self._settings.prefix)
