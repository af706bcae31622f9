"""The last delivery of an entry, alone in its worker; what only a killed process shows is in `test_poison.py`."""

from __future__ import annotations

import asyncio
from typing import Any

import faust

from tests.conformance.harness import Bench, Seen, collect, running
from tests.integration.redis_transport.conftest import Client, hand_to_the_dead, leave_behind, pending
from tests.waiting import wait_for


class Watched:
    """Agents whose events wait at a gate, and what was under way when each started."""

    def __init__(self) -> None:
        self.started: list[bytes] = []
        self.at_once: list[int] = []
        self.gate = asyncio.Event()
        self._under_way = 0

    def agent(self, app: faust.App, topic: faust.TopicT) -> None:
        """An agent on the topic."""

        async def agent(stream: Any) -> None:
            async for value in stream:
                self._under_way += 1
                self.started.append(value)
                self.at_once.append(self._under_way)
                await self.gate.wait()
                self._under_way -= 1

        app.agent(topic, name=f"watched {topic.get_topic_name()}", concurrency=30)(agent)


async def worn(bench: Bench, redis: Client, topic: str, count: int) -> None:
    """Entries that have one delivery left, the trial."""
    bench.settings["max_deliveries"] = "3"
    await hand_to_the_dead(redis, topic, f"workers-{bench.number}", count, times=2)


async def acknowledged(redis: Client, topic: str, group: str) -> bool:
    """Whether nothing is pending."""
    return await pending(redis, topic, group) == {}


async def test_entries_of_all_topics_are_tried_one_at_a_time(bench: Bench, redis: Client, group: str) -> None:
    """One worker tries one entry at a time over all its topics, or the poison of one would bury another's."""
    other = f"{bench.topic_name}-other"
    await worn(bench, redis, bench.topic_name, 3)
    await worn(bench, redis, other, 3)
    app, watched = bench.app(), Watched()
    watched.agent(app, bench.topic(app))
    watched.agent(app, bench.topic(app, other))
    async with running(app):
        for number in range(1, 7):
            await wait_for(lambda number=number: len(watched.started) == number, what=f"trial {number}")  # type: ignore[misc]
            watched.gate.set()
            watched.gate = asyncio.Event()
        await wait_for(lambda: acknowledged(redis, bench.topic_name, group), what="the end of one topic")
        await wait_for(lambda: acknowledged(redis, other, group), what="the end of the other")
    assert watched.at_once == [1] * 6


async def test_a_trial_waits_for_what_is_under_way(bench: Bench, redis: Client, group: str) -> None:
    """An entry has its last delivery when its worker has nothing else, and new entries wait until it is over."""
    await redis.xgroup_create(bench.topic_name, group, "0", mkstream=True)
    app, watched = bench.app(max_deliveries="3"), Watched()
    watched.agent(app, bench.topic(app))
    async with running(app):
        await bench.send(b"before")
        await wait_for(lambda: watched.started == [b"before"], what="the first event")
        await leave_behind(redis, bench.topic_name, group, b"worn", times=2)
        await wait_for(lambda: app.consumer.trial._standing, what="the worker to hold back")  # type: ignore[attr-defined]
        await redis.xadd(bench.topic_name, {"event": "after"})
        watched.gate.set()
        watched.gate = asyncio.Event()
        await wait_for(lambda: len(watched.started) > 1, what="the trial")
        watched.gate.set()
        watched.gate = asyncio.Event()
        await wait_for(lambda: len(watched.started) > 2, what="the new entry")
        watched.gate.set()
    assert watched.started == [b"before", b"worn", b"after"]
    assert watched.at_once == [1, 1, 1]


async def test_a_trial_keeps_no_other_worker_from_new_entries(bench: Bench, redis: Client, group: str) -> None:
    """While the leader is alone with one entry, the others go on; one at a time is tried in the whole group."""
    await worn(bench, redis, bench.topic_name, 2)
    leader, other, watched = bench.app(), bench.app(), Watched()
    watched.agent(leader, bench.topic(leader))
    seen = collect(bench, other)
    async with running(leader):
        await wait_for(lambda: watched.started == [b"0"], what="the trial")
        async with running(other):
            await bench.send(*(b"new" for _ in range(20)))
            await seen.become(20)
            watched.gate.set()
            await wait_for(lambda: acknowledged(redis, bench.topic_name, group), what="the end")
    assert sorted({*watched.started, *seen}) == [b"0", b"1", b"new"]
    assert b"0" not in seen


async def test_a_trial_that_takes_too_long_is_withdrawn(bench: Bench, redis: Client, group: str) -> None:
    """After twenty leases its worker reads again, and the delivery is not the entry's last any longer."""
    bench.settings["lease"] = "150ms"
    await worn(bench, redis, bench.topic_name, 1)
    app, watched = bench.app(), Watched()
    watched.agent(app, bench.topic(app))
    async with running(app):
        await wait_for(lambda: watched.started == [b"0"], what="the trial")
        [(_, _, deliveries)] = (await pending(redis, bench.topic_name, group)).values()
        assert deliveries == 3
        await bench.send(b"new")
        await wait_for(lambda: b"new" in watched.started, what="the new entry")
        counts = [deliveries for _, _, deliveries in (await pending(redis, bench.topic_name, group)).values()]
        assert counts == [2, 1]
        watched.gate.set()
    assert watched.started == [b"0", b"new"]


async def test_a_hung_agent_puts_the_trial_off(bench: Bench, redis: Client, group: str) -> None:
    """A worker whose agents do not finish does not stand still for ever: it reads again, and buries nobody."""
    bench.settings.update(lease="150ms", drain="100ms")
    await redis.xgroup_create(bench.topic_name, group, "0", mkstream=True)
    other = f"{bench.topic_name}-other"
    app, watched = bench.app(max_deliveries="3"), Watched()
    watched.agent(app, bench.topic(app))
    watched.agent(app, bench.topic(app, other))
    async with running(app):
        await bench.send(b"hung")
        await wait_for(lambda: watched.started == [b"hung"], what="the event that hangs")
        await leave_behind(redis, other, group, b"worn", times=2)
        await wait_for(lambda: app.consumer.trial._standing, what="the worker to hold back")  # type: ignore[attr-defined]
        await bench.send(b"new")
        await wait_for(lambda: b"new" in watched.started, what="the new entry")
        assert [count for _, _, count in (await pending(redis, other, group)).values()] == [2]
    assert watched.started == [b"hung", b"new"]


async def test_a_trial_that_a_restart_cuts_off_does_not_count(bench: Bench, redis: Client, group: str) -> None:
    """A worker that is stopped in the middle of a trial hands the entry back: another tries it again."""
    bench.settings["drain"] = "100ms"
    await worn(bench, redis, bench.topic_name, 1)
    first, second, watched = bench.app(), bench.app(), Watched()
    watched.agent(first, bench.topic(first))
    seen: Seen = collect(bench, second)
    async with running(first):
        await wait_for(lambda: watched.started == [b"0"], what="the trial")
    async with running(second):
        await seen.become(1)
    assert await redis.xlen("dead-letters") == 0


async def test_few_come_along_with_an_entry_that_was_redelivered_often(bench: Bench, redis: Client, group: str) -> None:
    """One delivery before the trials an entry has 15 others beside it at most: a poison takes no more along."""
    bench.settings["max_deliveries"] = "5"
    await hand_to_the_dead(redis, bench.topic_name, group, 40, times=2)
    app, watched = bench.app(), Watched()
    watched.agent(app, bench.topic(app))
    async with running(app):
        await wait_for(lambda: len(watched.started) == 16, what="the first sixteen")
        await bench.send(b"new")
        await wait_for(lambda: b"new" in watched.started, what="an entry that nobody suspects")
        assert len(watched.started) == 17
        watched.gate.set()
        await wait_for(lambda: acknowledged(redis, bench.topic_name, group), what="all")


async def test_a_claim_whose_reply_got_lost_convicts_nobody(bench: Bench, redis: Client, group: str) -> None:
    """What was claimed to be tried and never arrived is handed back; a repeated reply is no delivery either."""
    await hand_to_the_dead(redis, bench.topic_name, group, 2)
    app = bench.app(max_deliveries="3")
    seen = collect(bench, app)
    app.conf.stream_wait_empty = False
    async with running(app):
        await seen.become(2)
        name = app.consumer.name  # type: ignore[attr-defined]
        for event, times in ((b"ordinary", 1), (b"on trial", 3)):
            await leave_behind(redis, bench.topic_name, group, event, times=times, consumer=name, idle_ms=0)
        # The connection of the reader breaks, as it does when a reply is lost.
        await redis.client_kill_filter(_type="normal", skipme=True)
        await seen.become(4)
    assert sorted(seen[2:]) == [b"on trial", b"ordinary"]
    assert await redis.xlen("dead-letters") == 0
