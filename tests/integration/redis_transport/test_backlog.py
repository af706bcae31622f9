"""What the transport tells of the backlog of topics."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, cast

import faust
import pytest
from redis.asyncio import Redis

from streams.redis.backlog import GroupBacklog, TopicBacklog
from streams.redis.errors import BrokerUnavailable
from streams.redis.transport import Transport


def transport_of(url: str) -> Transport:
    """The transport of an app that has no agents."""
    return cast("Transport", faust.App("looker", broker=url).transport)


async def backlog(url: str, topic: str, *groups: str) -> TopicBacklog:
    """One topic's."""
    (found,) = await transport_of(url).backlogs({topic: groups})
    return found


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    """A plain client of the test's server."""
    async with Redis.from_url(redis_url) as client:
        yield client


async def test_what_waits_is_told_by_group(redis: Any, redis_url: str) -> None:
    """Lag is what a group was never given, pending what it has not acknowledged; the oldest of that has an age."""
    for number in range(5):
        await redis.execute_command("XADD", "orders", f"{1_000 + number}-1", "event", "x")
    await redis.xgroup_create("orders", "billing", "0")
    await redis.xreadgroup("billing", "w1", {"orders": ">"}, count=3)
    await redis.xack("orders", "billing", "1000-1")
    found = await backlog(redis_url, "orders", "billing", "shipping")
    assert (found.topic, found.length) == ("orders", 5)
    billing, shipping = found.groups
    assert (billing.group, billing.consumers, billing.pending, billing.lag) == ("billing", 1, 2, 2)
    server_s = (await redis.time())[0]
    assert billing.oldest_pending is not None
    assert abs(billing.oldest_pending - timedelta(seconds=server_s - 1.001)) < timedelta(minutes=5)
    assert shipping == GroupBacklog("shipping", lag=5), "a group that never started has everything before it"


async def test_nothing_waits_in_a_topic_that_is_not_there(redis: Any, redis_url: str) -> None:
    """Asking makes no stream and no group."""
    assert await backlog(redis_url, "orders", "billing") == TopicBacklog("orders", 0, [GroupBacklog("billing")], [])
    assert await redis.dbsize() == 0


async def test_partitions_are_summed_and_the_prefix_is_obeyed(redis: Any, redis_url: str) -> None:
    """A topic is one thing to its operator, however many streams it has."""
    for partition in range(3):
        stream = f"shop:{{orders.{partition}}}"
        await redis.xadd(stream, {"event": "x"})
        await redis.xgroup_create(stream, "billing", "0")
        await redis.xadd(stream, {"event": "y"})
    await redis.xreadgroup("billing", "w1", {"shop:{orders.1}": ">"}, count=1)
    found = await backlog(f"{redis_url}?prefix=shop:&partitions=orders:3", "orders", "billing")
    (billing,) = found.groups
    assert (found.length, billing.lag, billing.pending, billing.consumers) == (6, 5, 1, 1)


async def test_a_lag_that_the_server_does_not_know_is_not_made_up(redis: Any, redis_url: str) -> None:
    """After an XDEL in the backlog the server cannot count; once the group has read it all, the lag is zero again."""
    ids = [await redis.xadd("orders", {"event": "x"}) for _ in range(4)]
    await redis.xgroup_create("orders", "billing", "0")
    await redis.xreadgroup("billing", "w1", {"orders": ">"}, count=1)
    await redis.xdel("orders", ids[2])
    (billing,) = (await backlog(redis_url, "orders", "billing")).groups
    assert billing.lag is None
    await redis.xreadgroup("billing", "w1", {"orders": ">"})
    (billing,) = (await backlog(redis_url, "orders", "billing")).groups
    assert billing.lag == 0


async def test_a_server_that_is_away_is_an_error() -> None:
    """Nothing is said to be empty that nobody has seen."""
    with pytest.raises(BrokerUnavailable):
        await backlog("redis://127.0.0.1:1/0", "orders")


async def test_streams_of_another_count_of_partitions_are_told(redis: Any, redis_url: str) -> None:
    """What a writer with three partitions, and one with none, put where readers of two never look."""
    for stream in ("orders", "{orders.0}", "{orders.1}", "{orders.2}"):
        await redis.xadd(stream, {"event": b"x"})
    found = await backlog(f"{redis_url}?partitions=orders:2", "orders")
    assert (found.length, found.unread) == (2, ["orders", "{orders.2}"])
    assert (await backlog(redis_url, "orders")).unread == ["{orders.0}", "{orders.1}"]
