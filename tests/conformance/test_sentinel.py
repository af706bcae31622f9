"""The contract on a master under a Sentinel."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import faust
import pytest

from streams.redis.errors import BrokerUnavailable
from tests.conformance.brokers import SentinelBroker, sentinel
from tests.conformance.contract import TransportContract
from tests.conformance.harness import Bench, Seen, collect, running, transport_of
from tests.waiting import wait_for

pytestmark = pytest.mark.chaos  # several servers to start, and slower tests


@pytest.fixture(scope="module")
def broker() -> Iterator[SentinelBroker]:
    """One set of servers for the module; every test has a topic of its own."""
    with sentinel() as server:
        yield server


def _has_all(seen: Seen, confirmed: list[bytes]) -> bool:
    return set(confirmed) <= set(seen)


def _is_green(app: faust.App) -> bool:
    return transport_of(app).health() == []


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

    async def test_failovers_under_load_end_no_worker(self, bench: Bench, broker: SentinelBroker) -> None:
        """The old master lives on as a replica, twice: two workers and a producer under load find the new one."""
        bench.settings = {"timeout": "1s", "block": "500ms", "lease": "3s"}
        apps, seen = [bench.app(), bench.app()], Seen()
        for app in apps:
            collect(bench, app, into=seen)
        async with running(*apps), bench.producing() as topic:
            for failover in range(2):
                failing_over = asyncio.create_task(asyncio.to_thread(broker.fail_over))
                confirmed = []
                for number in range(10_000):
                    event = b"%d-%d" % (failover, number)
                    with suppress(BrokerUnavailable):
                        await (await topic.send(value=event))
                        if failing_over.done():  # what the old master took meanwhile may be gone
                            confirmed.append(event)
                    if len(confirmed) == 50:
                        break
                    await asyncio.sleep(0.01)
                await failing_over
                assert len(confirmed) == 50
                await wait_for(partial(_has_all, seen, confirmed), what="what the new master took")
            for app in apps:
                assert not app.crashed
                assert not app.consumer.crashed
                await wait_for(partial(_is_green, app), what="a green light")
