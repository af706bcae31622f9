"""Entries as nobody should write them: each is handed over once and settled, and those after it too."""

from __future__ import annotations

import random
from typing import Any

from faust.types import EventT

from tests.conformance.harness import Bench, running, transport_of
from tests.integration.redis_transport.conftest import Client, leave_behind, pending
from tests.waiting import wait_for

NAMES = (
    b"event", b"key", b"ts", b"data", b"h:", b"h:\x00", b"h:\xff\xfe", b"h:a\nb", "h:ключ".encode(), b"ce_id",
    b"ce-\x00", b"content-type", b"", b"\x00", b"\xff", b"nobody's", b"h:" + b"n" * 70_000,
)  # fmt: skip
VALUES = (b"", b"\x00", b"\xff", b"-1", b"999999999999999", b"9" * 5000, b"{}", b"1e400", b"v" * 2_000_000)


def odd_entries(count: int) -> list[list[bytes]]:
    """Fields and values of entries, the same in each run: some of a few fields, some of thousands."""
    chosen = random.Random(8)
    entries = [[name, value] for name in NAMES for value in VALUES[:5]]
    for _ in range(count):
        fields = chosen.sample(NAMES, chosen.randint(1, 6))
        entries.append([part for name in fields for part in (name, chosen.choice(VALUES))])
    entries.append([part for number in range(5000) for part in (b"h:%d" % number, b"x")])
    return entries


async def test_every_entry_is_handed_over_and_settled(bench: Bench, redis: Client, group: str) -> None:
    """Any names, any values and any number of them: no entry keeps its reader from the next, or stays pending."""
    app = bench.app()
    seen: list[EventT[Any]] = []

    @app.agent(bench.topic(app), concurrency=3)
    async def agent(stream: Any) -> None:
        async for event in stream.noack().events():
            seen.append(event)
            event.ack()

    entries = odd_entries(60)
    async with running(app):
        for fields in entries:
            await redis.execute_command("XADD", bench.topic_name, "*", *fields)
        # The last ID but one that there is: nothing can be written after it, and its time is no date.
        await redis.execute_command("XADD", bench.topic_name, "18446744073709551615-1", "event", "last")
        await wait_for(lambda: len(seen) == len(entries) + 1, what="every entry")
        await wait_for(lambda: _settled(redis, bench.topic_name, group), what="every acknowledgement")
        assert transport_of(app).health() == []


async def test_any_entry_can_be_buried(bench: Bench, redis: Client, group: str) -> None:
    """A poison that is none of the usual entries ends in the dead letters with all its fields, byte for byte."""
    fields = {b"h:\xff\x00": b"\x00", b"odd": b"\xff", b"ts": b"never"}
    entry_id = await redis.xadd(bench.topic_name, fields)
    await redis.xgroup_create(bench.topic_name, group, "0")
    await redis.xreadgroup(group, "dead", {bench.topic_name: ">"})
    await redis.xclaim(bench.topic_name, group, "dead", 0, [entry_id], idle=60_000, retrycount=5, justid=True)
    letters = f"dead-{bench.number}"
    app = bench.app(dead_letter_topic=letters)
    app.agent(bench.topic(app))(_never)
    async with running(app):
        await wait_for(lambda: redis.xlen(letters), what="the dead letter")
    [(_, letter)] = await redis.xrange(letters)
    assert fields.items() <= letter.items()


async def test_a_burial_that_is_refused_is_made_up_for(bench: Bench, redis: Client, group: str) -> None:
    """While the dead letters cannot be written, others are claimed all the same; no agent is given the poison again."""
    letters = f"dead-{bench.number}"
    await redis.set(letters, "no stream")
    await redis.xgroup_create(bench.topic_name, group, "0", mkstream=True)
    await leave_behind(redis, bench.topic_name, group, b"poison", times=5)
    await leave_behind(redis, bench.topic_name, group, b"expired", times=1)
    app = bench.app(dead_letter_topic=letters)
    seen: list[bytes] = []

    @app.agent(bench.topic(app))
    async def agent(stream: Any) -> None:
        async for value in stream:
            seen.append(value)  # noqa: PERF401 - an agent is a loop over its stream

    async with running(app):
        await wait_for(lambda: seen == [b"expired"], what="the other entry")
        await wait_for(lambda: "WRONGTYPE" in str(transport_of(app).health()), what="a red light")
        await bench.send(b"new")
        await wait_for(lambda: seen == [b"expired", b"new"], what="a new entry")
        await redis.delete(letters)
        await wait_for(lambda: redis.xlen(letters), what="the dead letter")
        await wait_for(lambda: not transport_of(app).health(), what="a green light")
    assert seen == [b"expired", b"new"]


async def _never(stream: Any) -> None:
    async for _ in stream:
        raise AssertionError("a poison past its trials is given to no agent")


async def _settled(redis: Client, topic: str, group: str) -> bool:
    return await pending(redis, topic, group) == {}
