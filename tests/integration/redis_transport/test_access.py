"""What a worker must be allowed to do, and nothing else."""

from __future__ import annotations

from pathlib import Path

from streams.redis.server import run_script
from tests.conformance.brokers import Broker, RedisBroker
from tests.conformance.harness import Bench, collect, running
from tests.integration.redis_transport.conftest import Client
from tests.waiting import wait_for

README = Path(__file__).parents[3] / "streams" / "redis" / "README.md"


async def test_the_documented_rule_is_enough(bench: Bench, redis: Client, broker: Broker) -> None:
    """A user with the ACL rule of the README sends, consumes, leads, recovers and trims; it may not flush."""
    [rule] = [line for line in README.read_text().splitlines() if line.startswith("ACL SETUSER")]
    words = rule.replace("~orders*", f"~{bench.topic_name}*").replace("~app:*", f"~workers-{bench.number}:*").split()
    await redis.execute_command("ACL", *words[1:])
    bench.broker = RedisBroker("valkey", broker.url().replace("redis://", "redis://worker:secret@"))
    bench.settings.update(retention="0s", trim_interval="100ms", leader_ttl="1s")
    app = bench.app()
    app.conf.topic_disable_leader = False
    seen = collect(bench, app)
    async with running(app):
        await bench.send(b"a", b"b")
        await seen.become(2)
        await wait_for(app.is_leader, what="the lock")
        await wait_for(lambda: _trimmed(redis, bench.topic_name), what="the stream to be trimmed")
        assert not [problem for problem in app.transport.health() if "NOPERM" in problem]  # type: ignore[attr-defined]
    denied = await redis.execute_command("ACL DRYRUN", "worker", "FLUSHALL")
    assert b"no permissions" in denied
    await run_script(redis, "trim", bench.topic_name, 0)


async def _trimmed(redis: Client, topic: str) -> bool:
    return bool(await redis.xlen(topic) == 0)
