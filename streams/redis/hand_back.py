"""Handing back: other workers take at once what this one will not do, without waiting for the lease to run out."""

from __future__ import annotations

import contextlib
from collections.abc import Set as AbstractSet

from faust.types import TP

from .partition import Partition
from .server import AWAY, Client, RedisError

__all__ = ["hand_back"]


async def hand_back(client: Client, partition: Partition, lease_s: float, started: AbstractSet[tuple[TP, int]]) -> None:
    """Let other workers take what this one holds of a partition.

    The deliveries are not counted: a worker that stops in order was not killed by what it held, and one restart after
    another must not make a dead letter of an entry that takes longer than the drain time.

    Args:
        client: to the server; if it is away, the leases run out without us.
        partition: whose entries to hand back.
        lease_s: entries that were idle for longer than this are anybody's.
        started: deliveries to keep.
    """
    idle_ms = int(lease_s * 1000) + 1
    tags = partition.tags
    by_count: dict[int, list[bytes]] = {}
    keep = {tags.entry_id(tag) for tp, tag in started if tp == partition.tp}
    for entry_id in tags.unacknowledged():
        if entry_id not in keep:
            by_count.setdefault(tags.deliveries(entry_id) - 1, []).append(entry_id)
    for count, entry_ids in by_count.items():
        with contextlib.suppress(RedisError, *AWAY):
            await partition.fenced(client, "hand_back", entry_ids, idle_ms, count)
        tags.lose(entry_ids)
