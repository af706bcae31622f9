"""Groups begin at the beginning of the stream; what all have acknowledged is trimmed.

`MAXLEN` on write would be simpler, and under backlog it deletes work that no group has read. Instead each worker asks
the server now and then for the oldest entry that some group still needs, and trims below it; one script, so no group
can join in between. Groups that a topic declares count before they run: while one of them does not exist, because it
has been destroyed or could not be created yet, nothing is trimmed, and it is created.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from time import monotonic

from redis.exceptions import ResponseError

from .health import Health
from .loop import Loop, each
from .partition import Partition
from .server import Client, run_script

__all__ = ["Trimmer", "create_groups"]

log = logging.getLogger(__name__)


async def create_groups(client: Client, stream: bytes, groups: Iterable[str]) -> None:
    """Create the groups that do not exist yet, and the stream if need be.

    Always at "0", never at "$": after a flush or a failover, "$" would skip what was written in between; and a group
    that a topic declares but that has not started yet must find everything.
    """
    for group in groups:
        try:
            await client.execute_command("XGROUP CREATE", stream, group, "0", "MKSTREAM")
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        else:
            log.info("group.created stream=%s group=%s at the beginning of the stream", stream.decode(), group)


_GROUP_MISSING = -1  # the script's answer

# What stays for minutes may stay some seconds more, and each look costs the server five commands.
_TRIMS_IN_A_RETENTION = 10


class Trimmer:
    """Trims all partitions that this worker reads."""

    def __init__(
        self,
        client: Client,
        partitions: Callable[[], Iterable[Partition]],
        retention_s: Callable[[str], float],
        every_s: float,
        health: Health,
        groups: Callable[[str], Iterable[str]],
    ) -> None:
        self._client = client
        self._partitions = partitions
        self._retention_s = retention_s
        self._every_s = every_s
        self._groups = groups
        self._loop = Loop("trimming", health)
        self._due: dict[bytes, float] = {}

    async def run(self) -> None:
        """Trim, until cancelled."""
        while True:
            # Jittered, so that a fleet spreads the work instead of repeating it at the same moment.
            await asyncio.sleep(self._loop.wait_s(normally=self._every_s * random.uniform(0.75, 1.25)))
            with self._loop:
                await each(filter(self._is_due, self._partitions()), self.trim)

    def _is_due(self, partition: Partition) -> bool:
        return monotonic() >= self._due.get(partition.stream, 0.0)

    async def trim(self, partition: Partition) -> int:
        """Trim one partition; returns how many entries were removed."""
        retention_s = self._retention_s(partition.tp.topic)
        groups = self._groups(partition.tp.topic)
        script = run_script(self._client, "trim", partition.stream, int(retention_s * 1000), *groups)
        removed = int(await script)
        if removed == _GROUP_MISSING:
            await create_groups(self._client, partition.stream, groups)
            return 0
        self._due[partition.stream] = monotonic() + retention_s / _TRIMS_IN_A_RETENTION
        if removed:
            log.debug("stream.trimmed stream=%s entries=%d", partition.stream.decode(), removed)
        return removed
