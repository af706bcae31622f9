"""What operators, failovers and other software do to a server under two workers at work: each of them goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from infra.local.processes import free_port
from tests.conformance.brokers import Broker, RedisBroker, valkey
from tests.conformance.harness import Bench, Seen, collect, running, transport_of
from tests.integration.redis_transport.conftest import Client, plain_client
from tests.resp_proxy import RespProxy
from tests.waiting import wait_for

_TOGETHER_S = 3.0  # how long a server is a replica, or short of memory


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A server of the test's own."""
    with valkey() as server:
        yield server


@pytest.fixture
def bench(broker: Broker, tmp_path: Path) -> Bench:
    """A topic on it, whose workers notice soon."""
    settings = {"lease": "2s", "scan": "200ms", "block": "500ms", "timeout": "1s", "trim_interval": "300ms"}
    return Bench(broker, tmp_path, settings=settings)


class Scene:
    """Two workers, a writer that never rests, and what was written and seen."""

    def __init__(self, bench: Bench, redis: Client, writer: Client) -> None:
        self.redis, self._writer = redis, writer
        self.topic, self.group = bench.topic_name, f"workers-{bench.number}"
        self.apps = [bench.app(), bench.app()]
        self.seen = Seen()
        self.confirmed: list[bytes] = []
        self.writing = True
        for app in self.apps:
            app.conf.topic_disable_leader = False
            collect(bench, app, into=self.seen)

    async def write(self) -> None:
        """Write an entry every few milliseconds, and note those that the server confirmed."""
        number = 0
        while self.writing:  # redis-py 8.1 may swallow a cancellation
            number += 1
            event = b"event-%d" % number
            try:
                await self._writer.xadd(self.topic, {"event": event})
            except (RedisError, OSError):
                await asyncio.sleep(0.05)
            else:
                self.confirmed.append(event)
            await asyncio.sleep(0.005)

    async def all_well(self, *, since: int, deadline_s: float = 5.0) -> None:
        """Every entry confirmed from this one on is seen, and both workers live and say that they are well."""
        at_least = len(self.confirmed) + 20
        await wait_for(lambda: len(self.confirmed) >= at_least, what="the server to take entries again")
        wanted = set(self.confirmed[since:])
        await wait_for(lambda: wanted <= set(self.seen), deadline_s=deadline_s, what="what was written since")
        for app in self.apps:
            await wait_for(partial(_is_green, app), what="a green light")
            assert not app.crashed
            assert not app.consumer.crashed


def _is_green(app: Any) -> bool:
    assert transport_of(app).health() == []
    return True


@asynccontextmanager
async def scene(bench: Bench, redis: Client) -> AsyncIterator[Scene]:
    """Two workers under load, that have begun."""
    writer = Redis.from_url(bench.broker.url())
    found = Scene(bench, redis, writer)
    async with writer, running(*found.apps):
        writing = asyncio.create_task(found.write())
        try:
            await found.seen.become(20)
            yield found
        finally:
            found.writing = False
            await writing


@pytest.mark.parametrize("other", ["has the same data", "is empty", "is away"])
async def test_a_master_that_is_a_replica_for_a_while(bench: Bench, redis: Client, other: str) -> None:
    """REPLICAOF and, three seconds later, REPLICAOF NO ONE: it ended every worker of a fleet at once."""
    with valkey() as second:
        port = int(second.address.rpartition(":")[2].partition("/")[0])
        async with plain_client(port) as twin, scene(bench, redis) as found:
            own = redis.connection_pool.connection_kwargs["port"]
            if other == "has the same data":
                await twin.execute_command("REPLICAOF", "127.0.0.1", own)
                await wait_for(lambda: _is_in_sync(twin), what="the replica")
                await redis.execute_command("CLIENT", "PAUSE", 200, "WRITE")  # as SENTINEL FAILOVER and operators do
                await wait_for(lambda: _has_all(redis, twin), what="the replica to have everything")
                await twin.execute_command("REPLICAOF", "NO", "ONE")
            await redis.execute_command("REPLICAOF", "127.0.0.1", free_port() if other == "is away" else port)
            await asyncio.sleep(_TOGETHER_S)  # the length of the fault
            assert all(transport_of(app).health() for app in found.apps), "readiness is red meanwhile"
            before = len(found.confirmed)
            await redis.execute_command("REPLICAOF", "NO", "ONE")
            await found.all_well(since=before if other == "is empty" else 0)


async def _is_in_sync(replica: Client) -> bool:
    return bool((await replica.info("replication"))["master_link_status"] == "up")


async def _has_all(master: Client, replica: Client) -> bool:
    offset = (await master.info("replication"))["master_repl_offset"]
    return bool((await replica.info("replication"))["slave_repl_offset"] >= offset)


async def test_a_replica_that_was_promoted_without_the_last_writes(bench: Bench, redis: Client, broker: Broker) -> None:
    """What the new master never got is gone; what it has is done, what it takes is read, also what looks delivered."""
    assert isinstance(broker, RedisBroker)
    own = redis.connection_pool.connection_kwargs["port"]
    with valkey() as second:
        port = int(second.address.rpartition(":")[2].partition("/")[0])
        async with plain_client(port) as replica, RespProxy(own, {}).listening() as proxy:
            await replica.execute_command("REPLICAOF", "127.0.0.1", own)
            await wait_for(lambda: _is_in_sync(replica), what="the replica")
            bench.broker = RedisBroker("proxied", f"redis://127.0.0.1:{proxy.port}/0")
            async with scene(bench, redis) as found:
                await replica.execute_command("REPLICAOF", "NO", "ONE")
                behind = len(found.seen) + 50
                await found.seen.become(behind)
                proxy.target = port
                proxy.cut()
                kept = {fields[b"event"] for _, fields in await replica.xrange(found.topic)}
                before = len(found.confirmed)
                await found.all_well(since=before)
                assert kept <= set(found.seen)


Action = Callable[[Scene], Awaitable[object]]


async def _trim(found: Scene) -> None:
    await found.redis.xtrim(found.topic, maxlen=0, approximate=False)


async def _delete(found: Scene) -> None:
    await found.redis.delete(found.topic)


async def _destroy(found: Scene) -> None:
    await found.redis.xgroup_destroy(found.topic, found.group)


async def _set_id(found: Scene) -> None:
    await found.redis.xgroup_setid(found.topic, found.group, "0")


async def _wrong_type(found: Scene) -> None:
    await found.redis.delete(found.topic)
    await found.redis.set(found.topic, "no stream")
    await asyncio.sleep(1.0)  # the length of the fault
    await found.redis.delete(found.topic)


async def _kill_clients(found: Scene) -> None:
    await found.redis.script_flush()
    await found.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def _fill_memory(found: Scene) -> None:
    await found.redis.config_set("maxmemory", "1")
    await _kill_clients(found)  # who comes back must not need to create a group that is there
    await asyncio.sleep(1.0)  # the length of the fault
    await found.redis.config_set("maxmemory", "0")


async def _pause(found: Scene) -> None:
    await found.redis.execute_command("CLIENT", "PAUSE", 1500)


async def _flush(found: Scene) -> None:
    await found.redis.flushall()


ROUGH: dict[str, Action] = {
    "XTRIM MAXLEN 0": _trim,
    "DEL": _delete,
    "XGROUP DESTROY": _destroy,
    "XGROUP SETID 0": _set_id,
    "a stream of the wrong type": _wrong_type,
    "SCRIPT FLUSH and CLIENT KILL": _kill_clients,
    "full memory": _fill_memory,
    "CLIENT PAUSE": _pause,
    "FLUSHALL": _flush,
}


async def test_rough_handling(bench: Bench, redis: Client) -> None:
    """One after the other: after each, what is written is read within seconds by workers that never ended."""
    async with scene(bench, redis) as found:
        for action in ROUGH.values():
            before = len(found.confirmed)
            await action(found)
            # What an operator removes is gone; what was written after it is not.
            since = len(found.confirmed) if action in {_trim, _delete, _wrong_type, _flush} else before
            await found.all_well(since=since)


async def _restore(found: Scene) -> None:
    """End what one handling left behind when the other killed its connection."""
    async with plain_client(found.redis.connection_pool.connection_kwargs["port"]) as client:
        await client.config_set("maxmemory", "0")
        if await client.type(found.topic) == b"string":
            await client.delete(found.topic)


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_rough_handlings_at_the_same_time(bench: Bench, redis: Client) -> None:
    """Every two of them together, each in the middle of the recovery from the other."""
    async with scene(bench, redis) as found:
        for first in ROUGH.values():
            for second in ROUGH.values():
                await asyncio.gather(first(found), second(found), return_exceptions=True)
                await _restore(found)
                await found.all_well(since=len(found.confirmed))
