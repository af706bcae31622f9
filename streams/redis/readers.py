"""The fetch loops of a worker: started for what is assigned, ended together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from faust.types import TP

from .fetch import TopicReader
from .partition import Partition
from .server import Client

if TYPE_CHECKING:
    from .consumer import Consumer

__all__ = ["Readers"]


class Readers:
    """One reader for each topic; on a Cluster one for each partition, as one command cannot read on several nodes."""

    def __init__(self, consumer: Consumer, open_client: Callable[[], Client]) -> None:
        self._consumer = consumer
        self._open_client = open_client
        self._apart = consumer.settings.cluster
        self._block_s = consumer.settings.block.total_seconds()
        self._readers: dict[str | TP, TopicReader] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, partitions: Iterable[Partition]) -> None:
        """Read these partitions too, unless they are read already."""
        together: dict[str | TP, list[Partition]] = {}
        for partition in partitions:
            together.setdefault(partition.tp if self._apart else partition.tp.topic, []).append(partition)
        for unit, members in together.items():
            if unit not in self._readers:
                topic = members[0].tp.topic
                reader = self._readers[unit] = TopicReader(self._consumer, topic, members, self._open_client())
                task = asyncio.create_task(self._supervise(reader), name=f"fetch {topic}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _supervise(self, reader: TopicReader) -> None:
        try:
            await reader.run()
        finally:
            await reader.close()

    async def look_now(self) -> None:
        """Have all readers look for expired entries, also those that wait for new ones."""
        for reader in self._readers.values():
            reader.look_now()
        await asyncio.gather(*(reader.unblock() for reader in self._readers.values()))

    async def stop(self) -> None:
        """Return when no read is under way; the consumer has said that it reads no more."""
        tasks = list(self._tasks)
        if not tasks:
            return
        with contextlib.suppress(Exception):  # then the reads end by themselves, as late as their block is long
            await asyncio.gather(*(reader.unblock() for reader in self._readers.values()))
        _, late = await asyncio.wait(tasks, timeout=self._block_s + 0.5)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1.0)
        self._readers.clear()
