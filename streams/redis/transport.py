"""The transport itself: what `faust.transports` points at."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, ClassVar, cast

from faust import Stream as FaustStream
from faust.exceptions import AlreadyConfiguredWarning
from faust.transport import base
from faust.types import AppT
from faust.types.transports import ConsumerCallback, ConsumerT, ProducerT
from yarl import URL

from .address import BrokerAddress
from .backlog import Look, TopicBacklog, look_at, read_backlogs
from .consumer import Consumer, Fetcher
from .health import Health, probe
from .layout import Layout, Topics
from .producer import Producer
from .refusals import refuse_threaded_producer
from .server import Server
from .stream import Stream

__all__ = ["Transport"]


class Transport(base.Transport):
    """Faust on Redis Streams. It makes the parts, and hands each what it uses.

    Attributes:
        settings: what the broker URL's query says.
        server: opens connections.
        layout: knows the streams of a topic.
    """

    Consumer: ClassVar[type[Any]] = Consumer
    Producer: ClassVar[type[Any]] = Producer
    Fetcher: ClassVar[type[Any]] = Fetcher

    driver_version = f"redis-streams (redis-py {version('redis')})"

    def __init__(self, url: list[URL], app: AppT, loop: Any = None) -> None:
        super().__init__(url, app, loop)
        address = BrokerAddress.parse(";".join(map(str, url)))
        self.settings = address.settings
        self.server = Server(address)
        self._topics = Topics(app, address.settings)
        self.layout = Layout(address.settings, self._topics)
        self._health = Health()
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
        """Return one sentence for each current problem; empty when all is well. It asks no server."""
        return self._health.problems()

    async def probe(self, topic: str) -> None:
        """Ask the server whether it takes entries of a topic now. Nothing is written, and no worker is needed.

        Raises:
            WritesRefused: it answers, but is full, read-only, or short of replicas or disk.
            BrokerUnavailable: it does not answer.
        """
        await probe(self.server, self.layout.streams(topic))

    async def backlogs(self, topics: Mapping[str, Iterable[str]]) -> list[TopicBacklog]:
        """Ask the server what waits in topics. Nothing is written, and no worker is needed.

        Args:
            topics: each with the groups that are to read it. One that does not exist yet has everything before it.

        Raises:
            TransportError: the server is away, or refuses.
        """
        return await read_backlogs(self.server, self.layout, topics)

    async def look_at(self, topic: str, *, group: str | None = None, limit: int, after: str | None = None) -> Look:
        """Show entries of a topic as they stand there. Nothing is delivered, claimed or written.

        Args:
            group: only those that are pending in this group.
            limit: most to show.
            after: where a look has ended, its `next`.

        Raises:
            InvalidPlace: `after` is none.
            TransportError: the server is away, or refuses.
        """
        return await look_at(self.server, self.layout, topic, group=group, limit=limit, after=after)

    def create_consumer(self, callback: ConsumerCallback, **kwargs: Any) -> ConsumerT:
        """The consumer."""
        parts = {"server": self.server, "layout": self.layout, "topics": self._topics, "health": self._health}
        return super().create_consumer(callback, **parts, **kwargs)

    def create_producer(self, **kwargs: Any) -> ProducerT:
        """The producer.

        Raises:
            UnsupportedFeature: it is to have a thread of its own.
        """
        refuse_threaded_producer(self.app)
        parts = {"server": self.server, "layout": self.layout, "health": self._health}
        return super().create_producer(**parts, **kwargs)
