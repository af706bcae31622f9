"""Faults on real processes. Lost events and repeated effects are zero in every one."""

from __future__ import annotations

import asyncio
import random
import signal

import pytest

from infra.local.processes import free_port
from tests.chaos.redis_transport.fleet import Fleet, fleet
from tests.chaos.redis_transport.report import check
from tests.waiting import wait_for

pytestmark = pytest.mark.chaos

# Where nothing may start twice: the shortest lease that a user would choose. Eight processes that start on two cores
# may keep another from running for two thirds of a second.
UNHURRIED = "lease=3s"


async def test_healthy_events_longer_than_the_lease_start_once() -> None:
    """A thousand events that take six leases each, on four workers without faults, are started a thousand times."""
    with fleet(work="18", spread="0.2", concurrency="250") as workers:
        workers.settings = workers.settings.replace("lease=1s", UNHURRIED)
        workers.start(4)
        await workers.up(4)
        workers.send(1000)
        await check(workers, "none; work of six leases", 0)
        assert workers.repeated("start") == 0


async def test_kill_9_at_random_moments() -> None:
    """Twenty workers are killed under load: what each held starts elsewhere within a lease and a scan of the kill."""
    with fleet(work="0.2") as workers:
        workers.start(4)
        await workers.up(4)
        for _ in range(20):
            workers.send(100)
            await asyncio.sleep(random.uniform(0.2, 0.8))
            workers.kill(random.choice(workers.workers))
            [replacement] = workers.start(1)
            await workers.joined(replacement)
        await check(workers, "kill -9 at a random moment", 20)
        assert_recovered(workers)


async def test_kill_9_on_an_idle_stream() -> None:
    """Nothing new arrives after the kill, and what the killed worker held starts elsewhere as soon."""
    with fleet(work="2") as workers:
        workers.start(2)
        await workers.up(2)
        for _ in range(20):
            workers.send(8)  # the survivor has room for all of them
            await wait_for(lambda: len({one.name for one in workers.records("start")}) == workers.sent, what="starts")
            workers.kill(random.choice(workers.workers))
            await workers.all_done()
            [replacement] = workers.start(1)
            await workers.joined(replacement)
        await check(workers, "kill -9, idle stream", 20)
        assert_recovered(workers)


def assert_recovered(workers: Fleet) -> None:
    """A lease (1 s), a scan (0.2 s), and as much again for a machine that is busy with starting processes."""
    recovery = workers.recovery_times()
    assert recovery
    assert max(recovery) < 3


async def test_a_stopped_process_takes_nothing_back() -> None:
    """A worker stopped for three leases loses its entries to others, and has no effect of its own when it wakes."""
    with fleet(work="0.5") as workers:
        [sleeper] = workers.start(1)
        await workers.up(1)
        workers.send(10)
        await wait_for(lambda: len(workers.records("start")) >= 5, what="the worker to be in the middle")
        sleeper.send_signal(signal.SIGSTOP)
        workers.start(1)
        workers.send(50)
        await wait_for(lambda: len(workers.records("effect")) >= 60, deadline_s=30, what="the other worker")
        sleeper.send_signal(signal.SIGCONT)
        workers.send(20)
        await check(workers, "SIGSTOP for more than three leases", 1)


async def test_a_blocked_event_loop_takes_nothing_back() -> None:
    """An agent that blocks its event loop for three leases loses that worker's entries; each has one effect."""
    with fleet(work="0.1", block="3") as workers:
        workers.start(2)
        await workers.up(2)
        workers.send(20)
        workers.send(1, prefix="block")
        workers.send(200)
        await check(workers, "an agent blocks the loop for three leases", 1)


async def test_an_event_that_kills_its_worker() -> None:
    """After `max_deliveries` it is a dead letter with the reason; its neighbours all have their effect."""
    with fleet(work="0.05") as workers:
        workers.settings = workers.settings.replace("max_deliveries=50", "max_deliveries=3&leader_ttl=1s")
        workers.send(30)
        workers.send(1, prefix="poison")
        workers.send(30)
        workers.sent -= 1  # the poison has no effect
        with workers.broker as broker:

            def dead() -> int:
                alive = [worker for worker in workers.workers if worker.poll() is None]
                if len(alive) < 2:
                    workers.start(2 - len(alive))
                return int(broker.xlen("dead-letters"))

            await wait_for(dead, deadline_s=60, what="the dead letter")
            await check(workers, "an event that kills its worker", 3)
            [(_, letter)] = broker.xrange("dead-letters")
        assert letter[b"event"].startswith(b"poison")
        assert letter[b"h:dead-letter-reason"] == b"max_deliveries"


async def test_server_restarts() -> None:
    """The server is killed and started again twenty times: workers go on within ten seconds, nothing is lost."""
    with fleet(work="0.05") as workers:
        workers.start(3)
        await workers.up(3)
        for _ in range(20):
            workers.send(50)
            await asyncio.sleep(0.2)
            workers.server.terminate()
            await asyncio.sleep(random.uniform(0.1, 0.5))
            workers.start_server()
        await workers.all_read_again()
        await check(workers, "restart of the server (append-only file)", 20)
        assert all(worker.poll() is None for worker in workers.workers), "no worker dies of it"


async def test_flush_under_load() -> None:
    """After FLUSHALL the group is back within five seconds at the beginning: what was written meanwhile is consumed."""
    with fleet(work="0.05") as workers, workers.broker as broker:
        workers.start(3)
        await workers.up(3)
        workers.send(300)
        await workers.all_done()
        broker.flushall()
        workers.send(300)
        await workers.all_read_again()
        await check(workers, "FLUSHALL", 1)


async def test_a_master_that_is_a_replica_for_a_while() -> None:
    """REPLICAOF and REPLICAOF NO ONE three seconds later, five times under load: once it ended every worker."""
    with fleet(work="0.05") as workers, workers.broker as broker:
        workers.start(3)
        await workers.up(3)
        for _ in range(5):
            workers.send(200)
            broker.execute_command("REPLICAOF", "127.0.0.1", free_port())
            await asyncio.sleep(3)  # the length of the fault
            broker.execute_command("REPLICAOF", "NO", "ONE")
        await workers.all_read_again()
        await check(workers, "REPLICAOF, and NO ONE 3 s later", 5)
        assert all(worker.poll() is None for worker in workers.workers), "no worker dies of it"


async def test_full_memory_and_killed_clients() -> None:
    """The server takes no writes and closes every connection, ten times: what is in it is done all the same."""
    with fleet(work="0.05") as workers, workers.broker as broker:
        workers.start(3)
        await workers.up(3)
        for _ in range(10):
            workers.send(100)
            broker.config_set("maxmemory", "1")
            broker.script_flush()
            broker.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await workers.all_done()
            broker.config_set("maxmemory", "0")
        await workers.all_read_again()
        await check(workers, "full memory, SCRIPT FLUSH and CLIENT KILL", 10)
        assert all(worker.poll() is None for worker in workers.workers), "no worker dies of it"


async def test_rolling_restarts() -> None:
    """Four workers are restarted one by one under load: no loss, no repeated start, each stop in its drain time."""
    with fleet(work="0.3") as workers:
        workers.settings = workers.settings.replace("lease=1s", UNHURRIED)
        workers.start(4)
        await workers.up(4)
        stops = []
        for worker in list(workers.workers):
            workers.send(100)
            [replacement] = workers.start(1)
            await workers.joined(replacement)
            stops.append(await workers.stop(worker))
        await check(workers, "rolling restart with SIGTERM", 4)
        assert workers.repeated("start") == 0
        assert max(stops) < 5


async def test_workers_come_and_go() -> None:
    """For two minutes the fleet grows to eight and shrinks to two every five seconds: every event is done once."""
    with fleet(work="0.1") as workers:
        workers.settings = workers.settings.replace("lease=1s", UNHURRIED)
        workers.start(4)
        await workers.up(4)
        loop = asyncio.get_running_loop()
        end, changes = loop.time() + 120, 0
        while loop.time() < end:
            target = 2 if changes % 2 else 8
            workers.send(200)
            while len(workers.workers) < target:
                workers.start(1)
            await asyncio.gather(*(workers.stop(worker) for worker in workers.workers[target:]))
            await asyncio.sleep(5)  # the pace of the fault, not a wait for something
            changes += 1
        await check(workers, "from 4 to 8 to 2 workers", changes)
        assert workers.repeated("start") == 0
