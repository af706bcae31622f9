"""One Valkey for the folder; tests that flush or stop a server start their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from redis.asyncio import Redis

from tests.conformance.brokers import Broker, valkey
from tests.conformance.harness import Bench
from tests.stepped_clock import Clock

# redis-py types an answer as everything that any option may make of it; here each is compared with what it must be.
Client: TypeAlias = Any


def plain_client(port: int) -> Client:
    """A client of a server on this machine, to be used with `async with`."""
    return Redis(port=port)


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The embedded Valkey."""
    with valkey() as server:
        yield server


@pytest.fixture
def bench(broker: Broker, tmp_path: Path) -> Bench:
    """A topic of the test's own, with a lease short enough to wait for."""
    return Bench(broker, tmp_path, settings={"lease": "600ms", "scan": "100ms", "drain": "2s"})


@pytest.fixture
async def redis(broker: Broker) -> AsyncIterator[Client]:
    """A plain client of the same server."""
    client = Redis.from_url(broker.url())
    yield client
    await client.aclose()


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until it is set."""
    return Clock()


@pytest.fixture
def group(bench: Bench) -> str:
    """The consumer group of `bench.app()`."""
    return f"workers-{bench.number}"


async def pending(redis: Client, topic: str, group: str) -> dict[bytes, tuple[bytes, int, int]]:
    """The group's pending entries: ID to consumer, idle time (ms) and deliveries."""
    rows: list[dict[str, Any]] = await redis.xpending_range(topic, group, "-", "+", 10_000)
    return {row["message_id"]: (row["consumer"], row["time_since_delivered"], row["times_delivered"]) for row in rows}


async def hand_to_the_dead(redis: Client, topic: str, group: str, count: int, *, times: int = 1) -> list[bytes]:
    """Write entries and deliver them to a consumer that nobody runs."""
    written = [await redis.xadd(topic, {"event": b"%d" % number}) for number in range(count)]
    await redis.xgroup_create(topic, group, "0", mkstream=True)
    await redis.xreadgroup(group, "dead", {topic: ">"}, count=count)
    if times > 1:
        await redis.xclaim(topic, group, "dead", 0, written, retrycount=times, justid=True)
    return written


# In one step, so that no worker reads the entry meanwhile.
_LEFT_BEHIND = """
local id = redis.call('XADD', KEYS[1], '*', 'event', ARGV[3])
redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], id)
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'IDLE', ARGV[5], 'RETRYCOUNT', ARGV[4], 'FORCE', 'JUSTID')
"""


async def leave_behind(
    redis: Client, topic: str, group: str, event: bytes, *, times: int, consumer: str = "dead", idle_ms: int = 60_000
) -> None:
    """Write an entry that has been delivered so often to a consumer, while workers read the topic."""
    await redis.eval(_LEFT_BEHIND, 1, topic, group, consumer, event, times, idle_ms)
