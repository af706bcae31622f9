"""The contract on a master under a Sentinel."""

import asyncio
from collections.abc import Iterator

import pytest

from streams.redis.errors import BrokerUnavailable
from tests.conformance.brokers import SentinelBroker, sentinel
from tests.conformance.contract import TransportContract
from tests.conformance.harness import Bench, collect, running
from tests.waiting import wait_for

pytestmark = pytest.mark.chaos  # several servers to start, and slower tests


@pytest.fixture(scope="module")
def broker() -> Iterator[SentinelBroker]:
    """One set of servers for the module; every test has a topic of its own."""
    with sentinel() as server:
        yield server


class TestSentinel(TransportContract):
    """A master under a sentinel keeps every promise."""

    async def test_a_failover_loses_nothing_that_was_replicated(self, bench: Bench, broker: SentinelBroker) -> None:
        """When the replica becomes the master, workers and producers find it and go on."""
        bench.settings = {"timeout": "1s", "block": "500ms"}
        app = bench.app()
        seen = collect(bench, app)
        async with running(app), bench.producing() as topic:
            await (await topic.send(value=b"before"))
            await seen.become(1)
            await asyncio.to_thread(broker.fail_over)

            async def sent() -> bool:
                try:
                    await (await topic.send(value=b"after"))
                except BrokerUnavailable:
                    return False
                return True

            await wait_for(sent, deadline_s=30, what="a master that takes writes")
            await wait_for(lambda: b"after" in seen, deadline_s=30, what="the event on the new master")
