"""Faults of the network between workers and their server."""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos.redis_transport.fleet import fleet
from tests.chaos.redis_transport.proxy import proxied
from tests.chaos.redis_transport.report import check

pytestmark = pytest.mark.chaos

BLACK_HOLE_S = 30


async def test_twenty_resets() -> None:
    """Every connection is reset twenty times under load: workers go on within ten seconds, nothing is lost."""
    with fleet(work="0.05") as workers:
        async with proxied(workers.port) as proxy:
            workers.worker_port = proxy.port
            workers.start(3)
            await workers.up(3)
            for _ in range(20):
                workers.send(50)
                await asyncio.sleep(0.2)
                proxy.reset()
            await workers.all_read_again()
            await check(workers, "TCP reset of every connection", 20)
            assert all(worker.poll() is None for worker in workers.workers), "no worker dies of it"


async def test_a_black_hole() -> None:
    """Nothing arrives for thirty seconds and no connection breaks: workers ask seldom, and go on within ten seconds."""
    with fleet(work="0.05") as workers:
        async with proxied(workers.port) as proxy:
            workers.worker_port = proxy.port
            workers.start(3)
            await workers.up(3)
            workers.send(100)
            await workers.all_done()
            proxy.swallow()
            before = workers.reads()
            workers.send(100)
            await asyncio.sleep(BLACK_HOLE_S)  # the fault's length, not a wait for something
            assert workers.reads() - before < 5 * BLACK_HOLE_S, "reads stay bounded meanwhile"
            proxy.pass_on()
            await workers.all_read_again()
            await check(workers, f"black hole of {BLACK_HOLE_S} s", 1)
            assert all(worker.poll() is None for worker in workers.workers), "no worker dies of it"
