"""Faust apps in the test's own process: short to write, quick to start, stopped for certain."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faust
from faust.types import EventT

from streams.jobs.faust_app import NoTables
from streams.redis.transport import Transport
from tests.conformance.brokers import Broker
from tests.waiting import wait_for

_numbers = itertools.count(1)


@dataclass
class Bench:
    """What one test works with: a broker, a topic nobody else uses, and apps that read and write it."""

    broker: Broker
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    partitions: int = 1

    def __post_init__(self) -> None:
        self.number = next(_numbers)
        self.topic_name = f"topic-{self.number}"

    def app(self, group: str = "workers", **settings: str) -> faust.App:
        """An app that is not started yet; apps with the same group share the work."""
        return faust.App(
            f"{group}-{self.number}",
            broker=self.broker.url(**{**self.settings, **settings}),
            topic_partitions=self.partitions,
            web_enabled=False,
            datadir=self.folder,
            TableManager=NoTables,
            **self._group_timeouts(),
            topic_disable_leader=True,
        )

    def _group_timeouts(self) -> dict[str, Any]:
        # Short sessions, so that a group notices soon that a worker has left.
        if self.broker.features.shares_a_partition:
            return {}
        return {"broker_session_timeout": 2.0, "broker_heartbeat_interval": 0.5, "broker_rebalance_timeout": 2.0}

    def topic(self, app: faust.App, name: str | None = None, **options: Any) -> faust.TopicT:
        """The test's topic, of plain bytes."""
        return app.topic(
            name or self.topic_name,
            key_type=bytes,
            key_serializer="raw",
            value_type=bytes,
            value_serializer="raw",
            partitions=self.partitions,
            internal=self.broker.features.declares_topics,
            **options,
        )

    @asynccontextmanager
    async def producing(self) -> AsyncIterator[faust.TopicT]:
        """The topic, ready to send to, without a worker."""
        app = self.app("producer")
        await app.maybe_start_producer()
        app.monitor.beacon.reattach(app.beacon)
        app.sensors.add(app.monitor)
        try:
            topic = self.topic(app)
            await topic.declare()
            yield topic
        finally:
            await app.producer.stop()

    async def send(self, *values: bytes, key: bytes | None = None) -> None:
        """Send events and wait until the broker has them."""
        async with self.producing() as topic:
            await asyncio.gather(*[await topic.send(key=key, value=value) for value in values])


def transport_of(app: faust.App) -> Transport:
    """The app's transport, which must be the one on Redis Streams."""
    transport = app.transport
    assert isinstance(transport, Transport)
    return transport


@asynccontextmanager
async def running(*apps: faust.App) -> AsyncIterator[None]:
    """Start the apps as workers, and stop them in the end."""
    started = []
    try:
        for app in apps:
            started.append(app)
            await app.start()
        yield
    finally:
        await asyncio.gather(*(app.stop() for app in started))


class Seen(list[Any]):
    """The values that an agent was handed, in order."""

    async def become(self, wanted: int, *, deadline_s: float = 15.0) -> None:
        """Wait until there are so many."""
        await wait_for(lambda: len(self) >= wanted, deadline_s=deadline_s, what=f"{wanted} events, not {len(self)}")


def collect(
    bench: Bench, app: faust.App, *, concurrency: int = 1, acknowledge: bool = True, into: Seen | None = None
) -> Seen:
    """An agent on the test's topic that notes what it gets, beside what others note `into` the same place."""
    seen = Seen() if into is None else into

    async def agent(stream: Any) -> None:
        event: EventT[Any]
        async for event in stream.noack().events():
            seen.append(event.value)
            if acknowledge:
                event.ack()

    app.agent(bench.topic(app), name="collect", concurrency=concurrency)(agent)
    return seen
