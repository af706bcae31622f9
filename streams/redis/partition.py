"""One partition of a topic, as a worker sees it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from faust.types import TP

from .delivery_tags import DeliveryTags
from .server import Client, checked_ids, run_script

__all__ = ["CHUNK", "Partition"]

log = logging.getLogger(__name__)

# The most IDs in one script call. Lua's `unpack` fails somewhere below 8,000, and the server serves no other client
# meanwhile.
CHUNK = 1000


@dataclass(slots=True)
class Partition:
    """A stream, the group that reads it, and what this consumer holds of it.

    Attributes:
        renewal: held while leases are renewed.
    """

    tp: TP
    stream: bytes
    group: str
    consumer: str
    tags: DeliveryTags
    renewal: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def fenced(self, client: Client, script: str, entry_ids: list[bytes], *args: str | int) -> list[bytes]:
        """Run a script on entries that this consumer should own. Returns the IDs of those that it does not own.

        Raises:
            InvalidResponse: the reply is not the script's; nothing is known of what was done.
        """
        lost: list[bytes] = []
        for start in range(0, len(entry_ids), CHUNK):
            chunk = sorted(entry_ids[start : start + CHUNK])
            reply = await run_script(client, script, self.stream, self.group, self.consumer, *args, *chunk)
            lost += checked_ids(reply)
        return lost

    def lost(self, entry_ids: list[bytes]) -> None:
        """Note that other consumers have taken these entries over. What this one still does for them has no effect."""
        unfinished = self.tags.lose(entry_ids)
        if entry_ids:
            log.warning(
                "lease.lost stream=%s group=%s entries=%d unfinished=%d: another consumer has taken them over",
                self.stream.decode(), self.group, len(entry_ids), unfinished,
            )  # fmt: skip
