"""The transport itself: what `faust.transports` points at."""

from __future__ import annotations

import os
import warnings
from importlib.metadata import version
from typing import Any, ClassVar, cast

from faust import Stream as FaustStream
from faust.exceptions import AlreadyConfiguredWarning
from faust.transport import base
from faust.types import AppT
from faust.types.enums import ProcessingGuarantee
from faust.types.settings import Settings
from faust.types.transports import ProducerT
from mode.utils.times import want_seconds
from yarl import URL

from .address import BrokerAddress
from .consumer import Consumer, Fetcher
from .errors import UnsupportedFeature
from .health import Health
from .keys import foreign_stream_keys, partition_for, stream_key
from .producer import Producer
from .server import Server
from .stream import Stream

__all__ = ["Transport"]

_FAUST_PARTITIONS = 8  # the default of Faust's `topic_partitions`, made for Kafka


class Transport(base.Transport):
    """Faust on Redis Streams."""

    Consumer: ClassVar[type[Any]] = Consumer
    Producer: ClassVar[type[Any]] = Producer
    Fetcher: ClassVar[type[Any]] = Fetcher

    driver_version = f"redis-streams (redis-py {version('redis')})"

    def __init__(self, url: list[URL], app: AppT, loop: Any = None) -> None:
        super().__init__(url, app, loop)
        address = BrokerAddress.parse(";".join(map(str, url)))
        self.settings = address.settings
        self.server = Server(address)
        self.state = Health()
        self._declared: dict[str, int] = {}
        self._partitions: dict[str, int] = {}
        self._streams: dict[tuple[str, int], bytes] = {}
        self._install_stream()

    def _install_stream(self) -> None:
        """Use our stream for the app, unless the app has chosen its own."""
        conf = self.app.conf
        if cast("Any", conf.Stream) is FaustStream:
            with warnings.catch_warnings():
                # Faust warns that the setting was read before it was changed: by the line above.
                warnings.simplefilter("ignore", AlreadyConfiguredWarning)
                conf.Stream = cast("Any", Stream)

    def health(self) -> list[str]:
        """What is wrong now, one sentence each; empty when all is well. Asks nobody: safe on every request."""
        return self.state.problems()

    def declare(self, topic: str, partitions: int) -> None:
        """Remember how many partitions a topic has."""
        self._declared[topic] = partitions
        self.forget_layout()

    def forget_layout(self) -> None:
        """Topics were added: look again how many partitions each has."""
        self._partitions.clear()
        self._streams.clear()

    def stream(self, topic: str, partition: int) -> bytes:
        """The Redis key of a topic's partition."""
        key = self._streams.get((topic, partition))
        if key is None:
            name = stream_key(topic, partition, self.partitions(topic), self.settings.prefix)
            key = self._streams[topic, partition] = name.encode()
        return key

    def foreign_stream_keys(self, topic: str) -> list[str]:
        """Where a writer would write who counts this topic's partitions differently."""
        return foreign_stream_keys(topic, self.partitions(topic), self.settings.prefix)

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has.

        The broker URL decides, then the topic itself, then the app's `topic_partitions`. Faust's own default of 8 is
        made for Kafka: unless the app sets it, a topic has one partition, and its stream has the topic's name.
        """
        known = self._partitions.get(topic)
        if known is None:
            known = self._partitions[topic] = self._count_partitions(topic)
        return known

    def _count_partitions(self, topic: str) -> int:
        configured = self.settings.partitions.get(topic)
        if configured is not None:
            return configured
        for channel in self._channels(topic):
            if channel.partitions:
                return int(channel.partitions)
        return self._declared.get(topic) or self._default_partitions()

    def _default_partitions(self) -> int:
        _, options = self.app._default_options
        explicit = options.get("topic_partitions") is not None or "TOPIC_PARTITIONS" in os.environ
        conf: Settings = self.app.conf
        return int(conf.topic_partitions) if explicit or conf.topic_partitions != _FAUST_PARTITIONS else 1

    def partition_for(self, topic: str, key: bytes | None) -> int:
        """The partition that a key belongs to."""
        return partition_for(key or b"", self.partitions(topic))

    def retention_s(self, topic: str) -> float:
        """How many seconds a topic keeps what every group has acknowledged."""
        for channel in self._channels(topic):
            if channel.retention is not None:
                return float(want_seconds(channel.retention))
        return self.settings.retention.total_seconds()

    def declared_groups(self, topic: str) -> set[str]:
        """The groups that must see every entry of a topic, though they may not have started yet."""
        groups = set(self.settings.groups.get(topic, ()))
        for channel in self._channels(topic):
            declared = (channel.config or {}).get("groups", ())
            groups.update(declared.split() if isinstance(declared, str) else declared)
        return groups

    def _channels(self, topic: str) -> list[Any]:
        return [channel for channel in self.app.topics if topic in channel.topics]

    def create_producer(self, **kwargs: Any) -> ProducerT:
        """The producer.

        Raises:
            UnsupportedFeature: it is to have a thread of its own.
        """
        if self.app.conf.producer_threaded:
            raise UnsupportedFeature("producer_threaded exists for Kafka only: this producer is asynchronous already")
        return super().create_producer(**kwargs)

    def refuse_unsupported(self) -> None:
        """Fail at start rather than work by halves.

        Raises:
            UnsupportedFeature: the app uses what Redis Streams cannot carry.
        """
        conf = self.app.conf
        tables = sorted(self.app.tables)
        if tables:
            raise UnsupportedFeature(
                f"tables ({', '.join(tables)}) need a changelog topic that is read from the start, which trimmed"
                " streams do not keep: store the state in a database, or use kafka://"
            )
        if str(conf.processing_guarantee) == str(ProcessingGuarantee.EXACTLY_ONCE):
            raise UnsupportedFeature(
                "processing_guarantee='exactly_once' needs Kafka's transactions: use the default, and make handlers"
                " idempotent"
            )
        if conf.stream_publish_on_commit:
            raise UnsupportedFeature(
                "stream_publish_on_commit needs offsets that are committed in order: send, await it, then acknowledge"
            )
        if conf.consumer_auto_offset_reset != "earliest":
            raise UnsupportedFeature(
                f"consumer_auto_offset_reset={conf.consumer_auto_offset_reset!r} would skip what was written before a"
                " group existed, and again after a flush: groups begin at the beginning here; leave it out"
            )

    def refuse_topics(self, unread: set[str]) -> None:
        """As `refuse_unsupported`, for the topics of agents.

        Args:
            unread: topics that stand for something else, such as being the leader.

        Raises:
            UnsupportedFeature: a topic is declared in a way that streams cannot honour.
        """
        for channel in self.app.topics:
            name = ", ".join(channel.topics)
            if unread.issuperset(channel.topics) and not channel.pattern:
                continue
            if channel.pattern:
                raise UnsupportedFeature(
                    f"topic pattern {channel.pattern.pattern!r}: streams are read by name; name the topics"
                )
            if channel.compacting:
                raise UnsupportedFeature(
                    f"topic {name}: compacting keeps the last event of each key for ever, but streams are trimmed:"
                    " store the state in a database, or use kafka://"
                )
            if not channel.acks:
                raise UnsupportedFeature(
                    f"topic {name}: with acks=False no entry would ever be acknowledged, and its worker would hold"
                    " each one: leave it out"
                )
