"""The layout maps topics to partitions, partitions to streams, and keys to partitions.

The broker URL decides, then what the app declares of the topic itself, then the app's `topic_partitions`.

A writer may count the topic's partitions differently. Its entries are good, and no worker will ever read them. The
server cannot know this, and neither can the writer. So readers look, every few leases, whether such a stream exists,
and say so.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Any

from faust.types import AppT
from faust.types.settings import Settings
from mode.utils.times import want_seconds
from redis.exceptions import NoPermissionError

from .keys import foreign_stream_keys, partition_for, stream_key
from .server import Client
from .settings import RedisSettings

__all__ = ["ForeignStreams", "Layout", "Topics", "foreign_streams"]

log = logging.getLogger(__name__)

_FAUST_PARTITIONS = 8  # the default of Faust's `topic_partitions`, made for Kafka


class Topics:
    """The topics that an app has declared. Asked each time, since an app may declare more while it runs."""

    def __init__(self, app: AppT, settings: RedisSettings) -> None:
        self._app = app
        self._settings = settings

    def channels(self, topic: str) -> list[Any]:
        """Each declaration of a topic; an app may have several."""
        return [channel for channel in self._app.topics if topic in channel.topics]

    def partitions(self, topic: str) -> int | None:
        """Return the number of partitions that a topic itself declares."""
        return next((int(channel.partitions) for channel in self.channels(topic) if channel.partitions), None)

    def default_partitions(self) -> int:
        """Return the number of partitions of a topic that declares none.

        Faust's own default of 8 is made for Kafka: unless the app sets it, a topic has one.
        """
        _, options = self._app._default_options
        explicit = options.get("topic_partitions") is not None or "TOPIC_PARTITIONS" in os.environ
        conf: Settings = self._app.conf
        return int(conf.topic_partitions) if explicit or conf.topic_partitions != _FAUST_PARTITIONS else 1

    def retention_s(self, topic: str) -> float:
        """Return for how many seconds a topic keeps what every group has acknowledged."""
        for channel in self.channels(topic):
            if channel.retention is not None:
                return float(want_seconds(channel.retention))
        return self._settings.retention.total_seconds()

    def linger_s(self, topic: str) -> float:
        """Return how long new entries of a topic may wait for company, in seconds."""
        declared = ((channel.config or {}).get("linger") for channel in self.channels(topic))
        return min((float(want_seconds(one)) for one in declared if one is not None), default=0.0)

    def groups(self, topic: str) -> set[str]:
        """Return the groups that must see every entry of a topic. They may not have started yet."""
        groups = set(self._settings.groups.get(topic, ()))
        for channel in self.channels(topic):
            declared = (channel.config or {}).get("groups", ())
            groups.update(declared.split() if isinstance(declared, str) else declared)
        return groups


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


async def foreign_streams(client: Client, keys: Iterable[str]) -> list[str]:
    """Return which of these keys exist. Those that may not be looked at do not count."""
    return [key for key in keys if await _exists(client, key)]


async def _exists(client: Client, key: str) -> bool:
    try:
        return bool(await client.exists(key))
    except NoPermissionError:
        return False


class ForeignStreams:
    """Looks for one topic's streams of other counts, and tells of each once."""

    def __init__(self, client: Client, topic: str, keys: Iterable[str]) -> None:
        self._client = client
        self._topic = topic
        self._unknown = set(keys)

    async def look(self) -> None:
        """Log an error for each that has come to exist."""
        for key in await foreign_streams(self._client, sorted(self._unknown)):
            self._unknown.discard(key)
            log.error(
                "stream.unread topic=%s stream=%s: no worker reads it. Writers and readers must agree on `partitions`"
                " in the broker URL; delete the stream when what it holds is not needed",
                self._topic, key,
            )  # fmt: skip
