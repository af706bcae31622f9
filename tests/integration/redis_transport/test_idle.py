"""A worker with nothing to do: how little it asks the server, and how soon it is there all the same."""

from __future__ import annotations

from typing import Any

from streams.redis.consumer import Consumer
from tests.conformance.brokers import RedisBroker
from tests.conformance.harness import Bench, collect, running
from tests.integration.redis_transport.conftest import Client, hand_to_the_dead
from tests.waiting import wait_for


def consumer_of(app: Any) -> Consumer:
    """The app's consumer."""
    assert isinstance(app.consumer, Consumer)
    return app.consumer


async def test_what_a_stopping_worker_hands_back_is_taken_at_once(bench: Bench, redis: Client) -> None:
    """Another worker is told of it, though it would not look by itself for half a lease."""
    settings = {"lease": "60s", "scan": "1h", "block": "30s", "drain": "0s"}
    leaving, staying = bench.app(**settings), bench.app(**settings)
    held = collect(bench, leaving, acknowledge=False)
    async with running(leaving):
        await bench.send(b"a")
        await held.become(1)
        seen = collect(bench, staying)
        async with running(staying):
            await wait_for(lambda: consumer_of(staying).hand_backs.heard, what="the other worker to listen")
            await leaving.stop()
            await seen.become(1)
    assert seen == [b"a"]


async def test_an_idle_worker_looks_for_expired_entries_twice_a_lease(bench: Bench, redis: Client) -> None:
    """Reads that wait are all that it sends: no scan, no trim, no lock; dead consumers' entries are found by then."""
    app = bench.app(lease="20s", block="100ms", trim_interval="100ms", leader_ttl="400ms")
    seen = collect(bench, app)

    async def calls(command: str) -> int:
        stats = await redis.info("commandstats")
        return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])

    async with running(app):
        await wait_for(lambda: consumer_of(app).hand_backs.heard, what="the worker to listen")
        await wait_for(lambda: calls("xpending"), what="its first scan")
        await redis.config_resetstat()

        async def reads() -> bool:
            return await calls("xreadgroup") >= 20

        await wait_for(reads, what="twenty reads")
        assert await calls("xpending") <= 1
        assert await calls("evalsha") <= 2, "the first trim and the first sweep"
        assert await calls("set") == 0
    assert seen == []


async def test_a_worker_that_may_not_listen_looks_by_itself(bench: Bench, redis: Client) -> None:
    """With an older rule of access, without XREAD, it is ready and takes over as soon as before."""
    await redis.execute_command("ACL", "SETUSER", "older", "on", ">secret", "~*", "+@all", "-xread")
    await hand_to_the_dead(redis, bench.topic_name, f"workers-{bench.number}", 1)
    port = redis.connection_pool.connection_kwargs["port"]
    bench.broker = RedisBroker("an older rule", f"redis://older:secret@127.0.0.1:{port}/0")
    app = bench.app()
    seen = collect(bench, app)
    try:
        async with running(app):
            await seen.become(1)
            assert not consumer_of(app).hand_backs.heard
            assert consumer_of(app).health.problems() == []
    finally:
        await redis.execute_command("ACL", "DELUSER", "older")
