"""Delivery tags: the numbers that Faust takes for offsets.

Faust drops a message whose offset is below the last one it read, and a reclaimed entry is older than what was read; so
an entry's ID cannot be its offset. Each delivery of an entry gets the next number of a local counter instead, and this
module maps it back to the entry.

    delivered ──append(tag)──▶ acknowledged ──settle──▶ gone
        │                          │  ▲
        └───────lose(ids)──────────┘  └─ put_back, when the server was away

An entry is *held* from its delivery until the server has confirmed the acknowledgement; all that time its lease is
renewed, and a second delivery of it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["DeliveryTags", "NeverAcknowledged"]


class DeliveryTags:
    """The deliveries of one partition."""

    def __init__(self, on_acknowledge: Callable[[], None]) -> None:
        self._on_acknowledge = on_acknowledge
        self._next = 1
        self._delivered: dict[int, bytes] = {}
        self._held: dict[bytes, int] = {}  # entry ID to how often it was delivered
        self._acknowledged: list[bytes] = []
        self._closed = False

    def __len__(self) -> int:
        """How many entries are held."""
        return len(self._held)

    def deliver(self, entry_id: bytes, deliveries: int = 1) -> int | None:
        """The tag for a new delivery, or None if the entry is held already.

        That happens when a failover forgot that the entry was delivered: the first delivery is still being worked on.
        """
        if entry_id in self._held:
            return None
        tag = self._next
        self._next = tag + 1
        self._delivered[tag] = entry_id
        self._held[entry_id] = deliveries
        return tag

    def append(self, tag: int) -> None:
        """Acknowledge. Named as list.append, because Faust's accelerated iterator writes straight into `_acked`."""
        if self._closed:
            return
        entry_id = self._delivered.pop(tag, None)
        if entry_id is not None:
            self._acknowledged.append(entry_id)
            self._on_acknowledge()

    def close(self) -> None:
        """Take no more acknowledgements.

        Faust acknowledges in a `finally` when an agent is cancelled, though its work was cut short; after the drain
        such an acknowledgement means nothing, and the entry is handed back instead.
        """
        self._closed = True

    def take_acknowledged(self, most: int) -> list[bytes]:
        """The oldest acknowledged entries, at most `most`; the caller settles them or puts them back."""
        taken, self._acknowledged = self._acknowledged[:most], self._acknowledged[most:]
        return taken

    def put_back(self, entry_ids: Iterable[bytes]) -> None:
        """The server did not confirm these acknowledgements; they are due again."""
        self._acknowledged[:0] = entry_ids

    def settle(self, entry_ids: Iterable[bytes]) -> None:
        """The server has confirmed: the entries are done."""
        for entry_id in entry_ids:
            self._held.pop(entry_id, None)

    def lose(self, entry_ids: Iterable[bytes]) -> int:
        """Note that other consumers own these entries now. Returns how many of them were still being worked on.

        Their tags stay valid to acknowledge, to no effect.
        """
        lost = set(entry_ids)
        for entry_id in lost:
            self._held.pop(entry_id, None)
        gone = [tag for tag, entry_id in self._delivered.items() if entry_id in lost]
        for tag in gone:
            del self._delivered[tag]
        if lost:
            self._acknowledged = [entry_id for entry_id in self._acknowledged if entry_id not in lost]
        return len(gone)

    def entry_id(self, tag: int) -> bytes | None:
        """The entry of an unacknowledged delivery."""
        return self._delivered.get(tag)

    def holds(self, entry_id: bytes) -> bool:
        """Return whether the entry is held."""
        return entry_id in self._held

    def deliveries(self, entry_id: bytes) -> int:
        """Return how often a held entry has been delivered; 0 if it is not held."""
        return self._held.get(entry_id, 0)

    def held(self) -> list[bytes]:
        """The IDs of all entries whose lease must be renewed."""
        return list(self._held)

    def unacknowledged(self) -> list[bytes]:
        """The IDs of all entries that no agent has acknowledged."""
        return list(self._delivered.values())

    @property
    def acknowledged(self) -> int:
        """Return the number of acknowledgements that wait to be sent."""
        return len(self._acknowledged)

    @property
    def delivered_total(self) -> int:
        """Return the number of deliveries so far."""
        return self._next - 1


class NeverAcknowledged(set[Any]):
    """Faust's index of acknowledged offsets, which must stay empty: `message.acked` already guards repeats."""

    def add(self, _offset: Any) -> None:
        """Remember nothing."""
