"""A look at entries shows them as they are, and leaves no trace."""

from collections.abc import AsyncIterator
from typing import Any, cast

import faust
import pytest
from redis.asyncio import Redis

from streams.redis.backlog import InvalidPlace, SeenEntry
from streams.redis.errors import BrokerUnavailable
from streams.redis.transport import Transport


def transport_of(url: str) -> Transport:
    """The transport of an app that has no agents."""
    return cast("Transport", faust.App("looker", broker=url).transport)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    """A plain client of the test's server."""
    async with Redis.from_url(redis_url) as client:
        yield client


async def _all(url: str, topic: str, group: str | None, limit: int) -> list[SeenEntry]:
    transport, after = transport_of(url), None
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
        await transport_of(redis_url).look_at("orders", limit=1, after=after)


async def test_a_server_that_is_away_is_said() -> None:
    """As with every other question."""
    with pytest.raises(BrokerUnavailable):
        await transport_of("redis://127.0.0.1:1/0").look_at("orders", limit=1)
