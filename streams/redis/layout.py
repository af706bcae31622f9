"""The layout maps topics to partitions, partitions to streams, and keys to partitions.

The broker URL decides, then the topic itself, then the app's `topic_partitions`.
"""

from __future__ import annotations

from .keys import foreign_stream_keys, partition_for, stream_key
from .settings import RedisSettings
from .topics import Topics

__all__ = ["Layout"]


class Layout:
    """A layout says where the entries of each topic are.

    What was found out is kept, as every entry that is sent asks for it.
    """

    def __init__(self, settings: RedisSettings, topics: Topics) -> None:
        self._settings = settings
        self._topics = topics
        self._declared: dict[str, int] = {}
        self._partitions: dict[str, int] = {}
        self._streams: dict[tuple[str, int], bytes] = {}

    def declare(self, topic: str, partitions: int) -> None:
        """Remember how many partitions a topic has."""
        self._declared[topic] = partitions
        self.forget()

    def forget(self) -> None:
        """Look again how many partitions each topic has: some were added."""
        self._partitions.clear()
        self._streams.clear()

    def partitions(self, topic: str) -> int:
        """Return the number of a topic's partitions."""
        known = self._partitions.get(topic)
        if known is None:
            known = self._partitions[topic] = self._count(topic)
        return known

    def _count(self, topic: str) -> int:
        return (
            self._settings.partitions.get(topic)
            or self._topics.partitions(topic)
            or self._declared.get(topic)
            or self._topics.default_partitions()
        )

    def stream(self, topic: str, partition: int) -> bytes:
        """The Redis key of a topic's partition."""
        key = self._streams.get((topic, partition))
        if key is None:
            name = stream_key(topic, partition, self.partitions(topic), self._settings.prefix)
            key = self._streams[topic, partition] = name.encode()
        return key

    def streams(self, topic: str) -> list[bytes]:
        """The Redis keys of all partitions of a topic, in order."""
        return [self.stream(topic, partition) for partition in range(self.partitions(topic))]

    def foreign_stream_keys(self, topic: str) -> list[str]:
        """Return the keys that a writer with another partition count would use."""
        return foreign_stream_keys(topic, self.partitions(topic), self._settings.prefix)

    def partition_for(self, topic: str, key: bytes | None) -> int:
        """The partition that a key belongs to."""
        return partition_for(key or b"", self.partitions(topic))
