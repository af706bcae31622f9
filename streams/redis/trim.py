"""Trimming: removes what every group has acknowledged, and never what a group has still to see.

`MAXLEN` on write would be simpler, and under backlog it deletes work that nobody saw. Instead each worker asks the
server now and then for the oldest entry that some group still needs, and trims below it; one script, so that no group
can join in between. Groups that a topic declares exist from the first start of any worker, so they count before they
run.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from time import monotonic

from .health import Health
from .partition import Partition
from .server import AWAY, Client, RedisError, run_script

__all__ = ["Trimmer"]

log = logging.getLogger(__name__)

_LOOP = "trimming"

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
    ) -> None:
        self._client = client
        self._partitions = partitions
        self._retention_s = retention_s
        self._every_s = every_s
        self._health = health
        self._due: dict[bytes, float] = {}

    async def run(self) -> None:
        """Trim, until cancelled."""
        while True:
            # Jittered, so that a fleet spreads the work instead of repeating it at the same moment.
            await asyncio.sleep(self._every_s * random.uniform(0.75, 1.25))
            try:
                for partition in self._partitions():
                    if monotonic() >= self._due.get(partition.stream, 0.0):
                        await self.trim(partition)
            except (*AWAY, RedisError) as error:
                self._health.failing(_LOOP, error)
            else:
                self._health.alive(_LOOP)

    async def trim(self, partition: Partition) -> int:
        """Trim one partition; returns how many entries were removed."""
        retention_s = self._retention_s(partition.tp.topic)
        removed = int(await run_script(self._client, "trim", partition.stream, int(retention_s * 1000)))
        self._due[partition.stream] = monotonic() + retention_s / _TRIMS_IN_A_RETENTION
        if removed:
            log.debug("stream.trimmed stream=%s entries=%d", partition.stream.decode(), removed)
        return removed
