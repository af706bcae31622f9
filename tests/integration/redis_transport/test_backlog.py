"""Operators see what waits for each group, and the entries themselves, and leave no trace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, cast

import faust
import pytest
from redis.asyncio import Redis

from streams.redis.backlog import GroupBacklog, InvalidPlace, SeenEntry, TopicBacklog
from streams.redis.errors import BrokerUnavailable
from streams.redis.transport import Transport


def transport_at(url: str) -> Transport:
    """The transport of an app that has no agents."""
    return cast("Transport", faust.App("looker", broker=url).transport)


async def backlog(url: str, topic: str, *groups: str) -> TopicBacklog:
    """One topic's."""
    (found,) = await transport_at(url).backlogs({topic: groups})
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


async def _all(url: str, topic: str, group: str | None, limit: int) -> list[SeenEntry]:
    transport, after = transport_at(url), None
    found: list[SeenEntry] = []
    while True:
        look = await transport.look_at(topic, group=group, limit=limit, after=after)
        assert len(look.entries) <= limit
        found += look.entries
        after = look.next
        if after is None:
            return found


# The entry before each is found by counting down through 64 bits of digits.
IDS = (
    "1-0",
    "1-9",
    "1-10",
    "10-0",
    "1000-18446744073709551615",
    "1001-0",
    "9007199254740993-0",
    "18446744073709551615-7",
)


@pytest.mark.parametrize("limit", [1, 3, len(IDS), 50])
async def test_every_entry_is_seen_once_in_its_order(redis: Any, redis_url: str, limit: int) -> None:
    """Whatever its ID; in a stream, and in a pending list with its consumer and how often it was given out."""
    for number in IDS:
        await redis.execute_command("XADD", "orders", number, "key", "k", "event", f"of {number}", "h:color", "red")
    await redis.xgroup_create("orders", "billing", "0")
    await redis.xreadgroup("billing", "w1", {"orders": ">"})
    for group in (None, "billing"):
        found = await _all(redis_url, "orders", group, limit)
        assert [one.id for one in found] == [*IDS]
        for one in found:
            assert one.entry is not None
            assert (one.entry.key, one.entry.value) == (b"k", f"of {one.id}".encode())
            assert list(one.entry.headers) == [("color", b"red")]
            assert (one.consumer, one.deliveries) == (("w1", 1) if group else (None, None))


@pytest.mark.parametrize("limit", [1, 2, 4, 50])
async def test_partitions_follow_each_other(redis: Any, redis_url: str, limit: int) -> None:
    """Pages go on in the next partition; one that is empty or not there has nothing."""
    for partition, count in ((0, 2), (2, 3)):
        for number in range(count):
            await redis.execute_command("XADD", f"{{orders.{partition}}}", f"{number + 1}-1", "event", "x")
    url = f"{redis_url}?partitions=orders:4"
    found = await _all(url, "orders", None, limit)
    assert [(one.stream, one.id) for one in found] == [
        ("{orders.0}", "1-1"),
        ("{orders.0}", "2-1"),
        *(("{orders.2}", f"{number}-1") for number in (1, 2, 3)),
    ]


async def test_a_look_changes_nothing(redis: Any, redis_url: str) -> None:
    """No group, consumer, delivery or key is made; what was removed is pending without its content."""
    for number in ("1-0", "2-0"):
        await redis.execute_command("XADD", "orders", number, "event", "x")
    await redis.xgroup_create("orders", "billing", "0")
    await redis.xreadgroup("billing", "w1", {"orders": ">"})
    await redis.xdel("orders", "1-0")

    async def state() -> object:
        groups = await redis.xinfo_groups("orders")
        pending = await redis.xpending_range("orders", "billing", "-", "+", 10)
        return groups, [(one["message_id"], one["times_delivered"]) for one in pending], await redis.dbsize()

    before = await state()
    found = await _all(redis_url, "orders", "billing", 10)
    assert [(one.id, one.entry is None) for one in found] == [("1-0", True), ("2-0", False)]
    assert await _all(redis_url, "orders", "nobody", 10) == []
    assert await _all(redis_url, "nothing", "billing", 10) == []
    assert await state() == before


@pytest.mark.parametrize("after", ["", "x", "0:1", "0:1-1-1", "0:18446744073709551616-0", "-1:0-0", "٣:1-1"])
async def test_a_place_that_is_none_is_refused(redis_url: str, after: str) -> None:
    """Before the server is asked."""
    with pytest.raises(InvalidPlace):
        await transport_at(redis_url).look_at("orders", limit=1, after=after)


async def test_a_server_that_is_away_is_said() -> None:
    """As with every other question."""
    with pytest.raises(BrokerUnavailable):
        await transport_at("redis://127.0.0.1:1/0").look_at("orders", limit=1)
