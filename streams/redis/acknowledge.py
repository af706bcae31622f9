"""This module tracks what is not acknowledged, and acknowledges in batches what is still owned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from faust.types import TP, Message

from .health import Health
from .loop import Loop, each
from .partition import CHUNK, Partition
from .server import Client, is_missing_group

__all__ = ["Acknowledger", "UnderWay"]


class UnderWay(dict[Message, Any]):
    """The messages under way, and the place of the agent that took each.

    To Faust it is the set of unacknowledged messages.
    """

    def add(self, message: Message) -> None:
        """Faust's own iterators do not say whose they are."""
        self[message] = None

    def discard(self, message: Message) -> None:
        """The message is acknowledged."""
        self.pop(message, None)

    def deliveries(self) -> set[tuple[TP, int]]:
        """The partition and the delivery tag of each."""
        return {(message.tp, message.offset) for message in self}

    def drop(self, place: Any) -> list[Message]:
        """Forget what was taken in a place; returns it."""
        dropped = [message for message, owner in self.items() if owner == place]
        for message in dropped:
            del self[message]
        return dropped


class Acknowledger:
    """Collects acknowledgements of all partitions and sends them after a short linger."""

    def __init__(
        self, client: Client, partitions: Callable[[], Iterable[Partition]], linger_s: float, health: Health
    ) -> None:
        self._client = client
        self._partitions = partitions
        self._linger_s = linger_s
        self._loop = Loop("acknowledging", health)
        self._due = asyncio.Event()
        self._sending = asyncio.Lock()
        self.notify = self._due.set

    async def run(self) -> None:
        """Send what is acknowledged, until cancelled."""
        while True:
            await self._due.wait()
            # Waiting a little turns hundreds of acknowledgements into one command.
            await asyncio.sleep(self._linger_s)
            self._due.clear()
            with self._loop:
                await self.flush()
            if self._loop.error is not None:
                self._due.set()
                await asyncio.sleep(self._loop.wait_s())

    async def flush(self) -> None:
        """Send everything that is acknowledged by now. What could not be sent stays due.

        Only by now: what is acknowledged meanwhile waits for company again, or each round trip would carry a handful.
        """
        async with self._sending:
            await each(self._partitions(), self._flush)

    async def _flush(self, partition: Partition) -> None:
        due = partition.tags.acknowledged
        while due > 0:
            due -= await self._send(partition, min(due, CHUNK))

    async def _send(self, partition: Partition, most: int) -> int:
        entry_ids = partition.tags.take_acknowledged(most)
        try:
            lost = await partition.fenced(self._client, "acknowledge", entry_ids)
        except BaseException as error:
            if is_missing_group(error):
                # The stream or the group was flushed away: there is nothing left to acknowledge.
                partition.tags.settle(entry_ids)
                return most
            partition.tags.put_back(entry_ids)
            raise
        if lost:
            partition.lost(lost)
        partition.tags.settle(entry_ids)
        return most
