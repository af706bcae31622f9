# ruff: noqa: PERF401 - an agent is a loop over its stream; a comprehension would hide that
"""Trimming removes what everybody has seen, and nothing else."""

from __future__ import annotations

from streams.redis.server import run_script
from tests.conformance.harness import Bench, collect, running
from tests.integration.redis_transport.conftest import Client
from tests.waiting import wait_for


async def test_acknowledged_entries_go_when_every_group_has_them(bench: Bench, redis: Client) -> None:
    """With two groups, an entry stays until the slower one has acknowledged it."""
    bench.settings.update(retention="0s", trim_interval="100ms")
    fast, slow = bench.app("fast"), bench.app("slow")
    seen_fast, seen_slow = collect(bench, fast), collect(bench, slow)
    await redis.xgroup_create(bench.topic_name, f"slow-{bench.number}", "0", mkstream=True)
    async with running(fast):
        await bench.send(*(b"%d" % number for number in range(300)))
        await seen_fast.become(300)
        await wait_for(lambda: _acknowledged(redis, bench.topic_name, f"fast-{bench.number}"), what="acknowledgements")
        assert await run_script(redis, "trim", bench.topic_name, 0) == 0
        assert await redis.xlen(bench.topic_name) == 300
    async with running(slow):
        await seen_slow.become(300)
        await wait_for(lambda: _empty(redis, bench.topic_name), what="the stream to be trimmed")


async def test_declared_groups_count_before_they_start(bench: Bench, redis: Client) -> None:
    """A group that a topic declares finds everything, though it starts after the others have finished."""
    bench.settings.update(retention="0s", trim_interval="50ms")
    app, late = bench.app("early"), bench.app("late")
    seen: list[bytes] = []

    @app.agent(bench.topic(app, config={"groups": [f"late-{bench.number}"]}))
    async def agent(stream: object) -> None:
        async for value in stream:  # type: ignore[attr-defined]
            seen.append(value)

    seen_late = collect(bench, late)
    async with running(app):
        await bench.send(b"a", b"b")
        await wait_for(lambda: len(seen) == 2, what="the early group")
        await wait_for(lambda: _acknowledged(redis, bench.topic_name, f"early-{bench.number}"), what="its end")
        await run_script(redis, "trim", bench.topic_name, 0)
    async with running(late):
        await seen_late.become(2)


async def test_a_topics_retention_is_kept(bench: Bench, redis: Client) -> None:
    """What is younger than the retention stays, acknowledged or not."""
    app = bench.app()
    seen = collect(bench, app)
    async with running(app):
        await bench.send(b"a", b"b")
        await seen.become(2)
        await wait_for(lambda: _acknowledged(redis, bench.topic_name, f"workers-{bench.number}"), what="the end")
    assert await run_script(redis, "trim", bench.topic_name, 60_000) == 0
    assert await redis.xlen(bench.topic_name) == 2


async def test_pending_entries_are_never_trimmed(redis: Client) -> None:
    """An entry that was delivered and not acknowledged keeps itself and everything after it."""
    written = [await redis.xadd("half-done", {"event": "x"}) for _ in range(5)]
    await redis.xgroup_create("half-done", "group", "0")
    await redis.xreadgroup("group", "someone", {"half-done": ">"})
    await redis.xack("half-done", "group", *written[:2], *written[3:])
    assert await run_script(redis, "trim", b"half-done", 0) == 2
    assert [entry_id for entry_id, _ in await redis.xrange("half-done")] == written[2:]


async def test_a_stream_without_groups_is_left_alone(redis: Client) -> None:
    """Nobody has seen these entries: they stay. A stream that does not exist is no error."""
    await redis.xadd("unseen", {"event": "x"})
    assert await run_script(redis, "trim", b"unseen", 0) == 0
    assert await run_script(redis, "trim", b"missing", 0) == 0
    assert await redis.xlen("unseen") == 1


async def _acknowledged(redis: Client, topic: str, group: str) -> bool:
    [found] = [row for row in await redis.xinfo_groups(topic) if row["name"] == group.encode()]
    return bool(found["pending"] == 0 and found["lag"] == 0)


async def _empty(redis: Client, topic: str) -> bool:
    return bool(await redis.xlen(topic) == 0)
