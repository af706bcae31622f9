"""This module answers Faust's questions about a consumer's positions.

Redis keeps them itself, so these answers have little to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from faust.transport.consumer import Consumer as FaustConsumer
from faust.types import TP, ConsumerMessage

from .partition import Partition

__all__ = ["PositionlessConsumer"]


class PositionlessConsumer(FaustConsumer):
    """A consumer without offsets: it counts deliveries, and never seeks, polls or commits a position."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._partitions: dict[TP, Partition] = {}

    async def perform_seek(self) -> None:
        """Nothing to seek: the group remembers what was delivered."""

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Nothing to seek."""
        return {}

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Nothing to seek."""

    async def _seek(self, partition: TP, offset: int) -> None:
        """Nothing to seek."""

    async def position(self, tp: TP) -> int | None:
        """The last delivery tag."""
        partition = self._partitions.get(tp)
        return partition.tags.delivered_total if partition else None

    def highwater(self, tp: TP) -> int:
        """The last delivery tag."""
        partition = self._partitions.get(tp)
        return partition.tags.delivered_total if partition else 0

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """The last delivery tags."""
        return {tp: self.highwater(tp) for tp in partitions}

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """Tags start at one."""
        return dict.fromkeys(partitions, 1)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[TP, list[Any]]:
        raise NotImplementedError("this transport has its own fetch loop")

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        raise NotImplementedError("this transport has its own fetch loop")

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        raise NotImplementedError("this transport acknowledges entry by entry")
