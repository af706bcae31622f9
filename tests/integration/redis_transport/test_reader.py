"""When the fetch loop of a topic looks for expired entries, by a clock that the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from faust.types import TP

from streams.redis.address import BrokerAddress
from streams.redis.channels import Channels
from streams.redis.delivery_tags import DeliveryTags
from streams.redis.fetch import TopicReader, Worker
from streams.redis.health import Health
from streams.redis.layout import ForeignStreams
from streams.redis.partition import Partition
from streams.redis.server import Server
from streams.redis.trial import Trial
from streams.redis.unblock import Unblock
from tests.conformance.harness import Bench, Seen
from tests.integration.redis_transport.conftest import Client, leave_behind
from tests.stepped_clock import Clock


class Noted(Channels):
    """Agents that have room for one entry, and note what they are handed."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.app())
        self.seen = Seen()

    def demand(self, tps: Iterable[TP]) -> tuple[int, int]:
        return 0, 1

    async def deliver(
        self, partition: Partition, entries: Sequence[tuple[bytes, list[bytes]]], deliveries: int = 1
    ) -> None:
        for entry_id, (_, event) in entries:
            partition.tags.deliver(entry_id, deliveries)
            self.seen.append(event)


@asynccontextmanager
async def reading(bench: Bench, group: str, clock: Clock, *, renewals_fail: bool = False) -> AsyncIterator[Seen]:
    """A reader of the bench's topic, with a lease of a minute; gives what it hands out."""
    server = Server(BrokerAddress.parse(bench.broker.url(lease="60s", scan="1h", block="50ms")))
    client, channels, health = server.open(), Noted(bench), Health(clock)
    worker = Worker(
        settings=server.settings,
        health=health,
        channels=channels,
        trial=Trial(60.0, lambda: False, lambda: True, clock),
        most_queued=1,
        groups=lambda _topic: [group],
        linger_s=lambda _topic: 0.0,
        renewals_fail=lambda: renewals_fail,
        hears_of_hand_backs=lambda: True,
        clock=clock,
    )
    tp = TP(bench.topic_name, 0)
    partition = Partition(tp, tp.topic.encode(), group, "me", DeliveryTags(lambda: None))
    foreign = ForeignStreams(client, tp.topic, ())
    reader = TopicReader(worker, [partition], client, Unblock(client, client), foreign)
    loop = asyncio.create_task(reader.run())
    try:
        yield channels.seen
    finally:
        reader.end()
        await loop
        await reader.close()
        assert health.problems() == []


async def test_a_scan_comes_when_half_a_lease_is_over(bench: Bench, redis: Client, group: str, clock: Clock) -> None:
    """Nothing that expires meanwhile is taken sooner, however often new entries are read; then it is taken at once."""
    async with reading(bench, group, clock) as seen:
        await bench.send(b"first")
        await seen.become(1)  # the first scan is over: it comes before the first read
        await leave_behind(redis, bench.topic_name, group, b"expired", times=1)
        clock.now += 29.0
        await bench.send(b"second")
        await seen.become(2)
        await bench.send(b"third")
        await seen.become(3)
        assert seen == [b"first", b"second", b"third"]
        clock.now += 2.0
        await seen.become(4)
    assert seen[3] == b"expired"


async def test_after_an_outage_the_living_have_time_to_renew(
    bench: Bench, redis: Client, group: str, clock: Clock
) -> None:
    """When the server is back every lease looks expired; nobody's work is taken over before half a lease is over."""
    async with reading(bench, group, clock, renewals_fail=True) as seen:
        await bench.send(b"first")
        await seen.become(1)
        await redis.client_kill_filter(_type="normal", skipme=True)
        await bench.send(b"second")
        await seen.become(2)
        await leave_behind(redis, bench.topic_name, group, b"expired", times=1)
        clock.now += 29.0
        await bench.send(b"third")
        await seen.become(3)
        assert seen == [b"first", b"second", b"third"]
        clock.now += 2.0
        await seen.become(4)
    assert seen[3] == b"expired"
