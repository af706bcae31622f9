"""The fetch loops of a worker: started for what is assigned, ended together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from faust.types import TP

from .fetch import TopicReader, Worker
from .layout import ForeignStreams, Layout
from .partition import Partition
from .server import Client, Server
from .unblock import Unblock

__all__ = ["Readers"]


class Readers:
    """Each topic has one reader. On a Cluster each partition has one, as one command cannot read on several nodes."""

    def __init__(self, worker: Worker, server: Server, layout: Layout, client: Client) -> None:
        """Read nothing yet.

        Args:
            worker: what all readers share.
            server: opens a client for each.
            layout: tells which streams no worker reads.
            client: the worker's own, which ends reads that wait.
        """
        self._worker = worker
        self._server = server
        self._layout = layout
        self._client = client
        self._apart = worker.settings.cluster
        self._block_s = worker.settings.block.total_seconds()
        self._readers: dict[str | TP, TopicReader] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, partitions: Iterable[Partition]) -> None:
        """Read these partitions too, unless they are read already."""
        together: dict[str | TP, list[Partition]] = {}
        for partition in partitions:
            together.setdefault(partition.tp if self._apart else partition.tp.topic, []).append(partition)
        for unit, members in together.items():
            if unit not in self._readers:
                reader = self._readers[unit] = self._reader(members)
                task = asyncio.create_task(self._supervise(reader), name=f"fetch {members[0].tp.topic}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _reader(self, partitions: list[Partition]) -> TopicReader:
        client = self._server.open()
        tp = partitions[0].tp
        # Looked at with the first partition only, where several readers share a topic.
        keys = self._layout.foreign_stream_keys(tp.topic) if tp.partition == 0 else ()
        foreign = ForeignStreams(client, tp.topic, keys)
        return TopicReader(self._worker, partitions, client, Unblock(client, self._client), foreign)

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
        """Begin no read any more; return when none is under way."""
        for reader in self._readers.values():
            reader.end()
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
