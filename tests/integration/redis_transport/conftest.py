"""One Valkey for the folder; tests that flush or stop a server start their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from redis.asyncio import Redis

from tests.conformance.brokers import Broker, valkey
from tests.conformance.harness import Bench

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
def group(bench: Bench) -> str:
    """The consumer group of `bench.app()`."""
    return f"workers-{bench.number}"


async def pending(redis: Client, topic: str, group: str) -> dict[bytes, tuple[bytes, int, int]]:
    """The group's pending entries: ID to consumer, idle time (ms) and deliveries."""
    rows: list[dict[str, Any]] = await redis.xpending_range(topic, group, "-", "+", 10_000)
    return {row["message_id"]: (row["consumer"], row["time_since_delivered"], row["times_delivered"]) for row in rows}
