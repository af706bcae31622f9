"""An entry that kills its workers, in real processes: it alone ends as a dead letter, whoever runs beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.brokers import RedisBroker, valkey
from tests.integration.redis_transport.conftest import Client, leave_behind, plain_client
from tests.waiting import wait_for

SETTINGS = "lease=500ms&scan=100ms&max_deliveries=3&leader_ttl=1s&timeout=1s&block=500ms"
GROUP = "poison"


class Workers:
    """A fleet that is kept at its size, whatever dies."""

    def __init__(self, broker: RedisBroker, folder: Path, size: int) -> None:
        self._broker = broker
        self._folder = folder
        self._size = size
        self.settings = SETTINGS
        self._running: list[subprocess.Popen[bytes]] = []

    def keep(self) -> None:
        """Replace those that have died."""
        self._running = [worker for worker in self._running if worker.poll() is None]
        environment = {
            **os.environ,
            "POISON_BROKER": f"{self._broker.address}?{self.settings}",
            "POISON_FOLDER": str(self._folder),
        }
        command = [sys.executable, "-m", "tests.integration.redis_transport.poison_worker", "worker", "--without-web"]
        with (self._folder / "workers.log").open("ab") as log:
            while len(self._running) < self._size:
                self._running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def end(self) -> None:
        """Leave nothing behind."""
        for worker in self._running:
            worker.kill()
            worker.wait()


@pytest.fixture
def broker() -> Iterator[RedisBroker]:
    """A server of the test's own: the workers' topics have fixed names."""
    with valkey() as server:
        yield server


@pytest.fixture
def workers(broker: RedisBroker, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Workers]:
    """As many workers as the test asks for."""
    fleet = Workers(broker, tmp_path, getattr(request, "param", 1))
    yield fleet
    fleet.end()


@pytest.fixture
def redis(broker: RedisBroker) -> Client:
    """A client of that server."""
    return plain_client(int(broker.address.rsplit(":", 1)[1].split("/")[0]))


async def end(workers: Workers, redis: Client, innocents: set[bytes], poisons: set[bytes]) -> None:
    """Wait until all is over: every innocent is done, and only the poisons are dead letters."""

    async def over() -> bool:
        workers.keep()
        # In this order: what has started is pending until it is over, but nothing is pending before it was handed over.
        if not set(await redis.lrange("starts", 0, -1)) >= innocents | poisons:
            return False
        pending = [await redis.xpending(topic, GROUP) for topic in ("a", "b")]
        return all(found["pending"] == 0 for found in pending)

    await wait_for(over, deadline_s=90, what="nothing pending")
    letters = [fields[b"event"] for _, fields in await redis.xrange("dead-letters")]
    assert set(letters) == poisons
    assert await redis.smembers("done") == innocents


@pytest.mark.parametrize("topic", ["a", "b"])
async def test_a_fresh_poison_does_not_bury_an_entry_on_trial(workers: Workers, redis: Client, topic: str) -> None:
    """An innocent entry on its last delivery, and a poison of its own or of another topic that comes meanwhile."""
    async with redis:
        for name in ("a", "b"):
            await redis.xgroup_create(name, GROUP, "0", mkstream=True)
        await leave_behind(redis, "b", GROUP, b"innocent", times=2)
        workers.keep()
        await wait_for(lambda: redis.llen("starts"), deadline_s=60, what="the trial")
        await redis.xadd(topic, {"event": "poison"})
        await end(workers, redis, {b"innocent"}, {b"poison"})
        assert await redis.lrange("starts", 0, -1) == [b"innocent", *[b"poison"] * 3]


async def test_a_worker_that_is_killed_during_a_trial_buries_nobody(workers: Workers, redis: Client) -> None:
    """Something else kills the worker that tries an entry: it is tried once more, and only a poison dies twice."""
    workers.settings = SETTINGS.replace("max_deliveries=3", "max_deliveries=4")
    async with redis:
        for name in ("a", "b"):
            await redis.xgroup_create(name, GROUP, "0", mkstream=True)
        await leave_behind(redis, "a", GROUP, b"unlucky", times=2)
        await leave_behind(redis, "b", GROUP, b"poison", times=2)
        await end(workers, redis, {b"unlucky"}, {b"poison"})
        starts = await redis.lrange("starts", 0, -1)
        assert sorted(starts) == [b"poison", b"poison", b"unlucky", b"unlucky"]


@pytest.mark.parametrize("workers", [2], indirect=True)
async def test_a_poison_in_each_topic_buries_none_of_sixty(workers: Workers, redis: Client) -> None:
    """Two workers, a poison among thirty entries in each of two topics: the poisons are buried, and nobody else."""
    innocents = {f"{topic}-{number}".encode() for topic in ("a", "b") for number in range(30)}
    async with redis:
        for topic in ("a", "b"):
            await redis.xgroup_create(topic, GROUP, "0", mkstream=True)
            for number in range(30):
                await redis.xadd(topic, {"event": f"{topic}-{number}"})
                if number == 5:
                    await redis.xadd(topic, {"event": f"poison-{topic}"})
        await end(workers, redis, innocents, {b"poison-a", b"poison-b"})
