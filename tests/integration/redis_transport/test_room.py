"""An agent that works on several events at once says how many it has room for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import faust

from streams.redis.consumer import Consumer
from tests.conformance.harness import Bench, Seen, collect, running
from tests.integration.redis_transport.conftest import Client, pending
from tests.waiting import wait_for

_PLACES = 40


async def test_an_agent_is_handed_what_it_has_room_for_and_no_more(bench: Bench, redis: Client, group: str) -> None:
    """One stream feeds forty tasks from a standing start; what they leave stays with the server, for other workers."""
    app = bench.app()
    topic = app.topic(bench.topic_name, key_type=bytes, value_type=bytes)
    begun: list[bytes] = []
    ends = asyncio.Event()

    async def work(event: Any) -> None:
        begun.append(event.value)
        await ends.wait()
        event.ack()

    @app.agent(topic)
    async def agent(stream: Any) -> None:
        free = asyncio.Semaphore(_PLACES)
        stream.ask_room(lambda: _PLACES - len(begun))
        async with asyncio.TaskGroup() as tasks:
            async for event in stream.noack().events():
                tasks.create_task(work(event))
                await free.acquire()

    for number in range(3 * _PLACES):
        await redis.xadd(bench.topic_name, {"event": str(number)})
    async with running(app):
        await wait_for(lambda: len(begun) >= _PLACES, what="as many as there is room for")
        [info] = await redis.xinfo_groups(bench.topic_name)
        assert info["lag"] >= _PLACES, "the rest, but for what the window keeps ready, is nobody's yet"
        ends.set()


def giving_back(bench: Bench, app: faust.App, most: Callable[[], int | None]) -> Seen:
    """An agent that does nothing, and gives all back that it takes; it says how many it has use for."""
    taken = Seen()

    async def agent(stream: Any) -> None:
        stream.ask_room(lambda: _PLACES, most)
        async for event in stream.noack().events():
            taken.append(event.value)
            cast("Consumer", app.consumer).give_back(event.message)

    app.agent(bench.topic(app), name="giving")(agent)
    return taken


async def handed_back(redis: Client, bench: Bench, group: str, lease_ms: int) -> bool:
    """Whether all that is pending is anybody's, as if it had never been delivered."""
    rows = (await pending(redis, bench.topic_name, group)).values()
    return bool(rows) and all(idle > lease_ms and times == 0 for _, idle, times in rows)


async def test_what_an_agent_gives_back_another_worker_takes_at_once(bench: Bench, redis: Client, group: str) -> None:
    """Not after a lease, which is a minute here, and its delivery does not count."""
    bench.settings |= {"lease": "60s", "scan": "60s"}
    wants: list[int | None] = [None]
    giver, taker = bench.app(), bench.app()
    given = giving_back(bench, giver, lambda: wants[0])
    done = collect(bench, taker)
    values = [b"%d" % number for number in range(_PLACES)]
    async with running(giver):
        await bench.send(*values)
        await given.become(_PLACES)
        wants[0] = 0
        await wait_for(lambda: handed_back(redis, bench, group, 60_000), what="all to be handed back")
        async with running(taker):
            await done.become(_PLACES)
            assert sorted(done) == sorted(values)
            await wait_for(lambda: nothing_pending(redis, bench, group), what="all to be acknowledged")


async def nothing_pending(redis: Client, bench: Bench, group: str) -> bool:
    """Whether nobody holds anything."""
    return not await pending(redis, bench.topic_name, group)


async def test_an_agent_that_has_use_for_none_is_handed_none(bench: Bench, redis: Client, group: str) -> None:
    """However many it had use for a moment ago, and whatever it hears of; and it is handed one when it wants one."""
    wants: list[int | None] = [None]
    app = bench.app()
    taken = giving_back(bench, app, lambda: wants[0])
    async with running(app):
        await bench.send(*(b"%d" % number for number in range(_PLACES)))
        await taken.become(5 * _PLACES)  # again and again, which makes its window wide
        wants[0] = 0
        await wait_for(lambda: handed_back(redis, bench, group, 600), what="all to be handed back")
        before = len(taken)
        await bench.send(*(b"more" for _ in range(_PLACES)))
        asked = await commands(redis)
        await wait_for(lambda: lease_passes(redis, bench, group), what="three leases to pass")
        assert len(taken) == before
        assert await commands(redis) == asked
        wants[0] = 1
        await taken.become(before + 1)


async def lease_passes(redis: Client, bench: Bench, group: str) -> bool:
    """Whether what was handed back has lain for three leases."""
    return all(idle > 3 * 600 for _, idle, _ in (await pending(redis, bench.topic_name, group)).values())


async def commands(redis: Client) -> int:
    """How often the server was asked for entries."""
    told = await redis.info("commandstats")
    return sum(told[f"cmdstat_{one}"]["calls"] for one in ("xreadgroup", "xclaim"))


async def test_a_renewal_that_is_under_way_keeps_nothing_that_is_given_back(
    bench: Bench, redis: Client, group: str
) -> None:
    """It would make the entries the worker's own for another lease, in which nobody works on them."""
    bench.settings |= {"lease": "60s", "scan": "60s"}
    app = bench.app()
    kept: list[Any] = []
    wants: list[int | None] = [None]

    async def agent(stream: Any) -> None:
        stream.ask_room(lambda: _PLACES, lambda: wants[0])
        async for event in stream.noack().events():
            kept.append(event.message)  # noqa: PERF401 - for the test to see while there may be more

    app.agent(bench.topic(app), name="keeping")(agent)
    async with running(app):
        await bench.send(*(b"%d" % number for number in range(_PLACES)))
        await wait_for(lambda: len(kept) == _PLACES, what="all to be taken")
        wants[0] = 0
        consumer, gone = cast("Consumer", app.consumer), _PLACES // 2
        for _ in range(gone):
            renewal = asyncio.create_task(consumer.lease.renew())
            await asyncio.sleep(0)
            consumer.give_back(kept.pop())
            await renewal

        async def given() -> bool:
            rows = (await pending(redis, bench.topic_name, group)).values()
            return sum(times == 0 for _, _, times in rows) == gone

        await wait_for(given, what="them to be handed back")
        rows = (await pending(redis, bench.topic_name, group)).values()
        assert all((idle > 60_000) == (times == 0) for _, idle, times in rows)


def lingering(bench: Bench, app: faust.App, seconds: float) -> Seen:
    """An agent that has room for forty events, and lets new ones wait for company."""
    seen = Seen()

    async def agent(stream: Any) -> None:
        stream.ask_room(lambda: _PLACES)
        async for event in stream.noack().events():
            seen.append(event.value)
            event.ack()

    app.agent(bench.topic(app, config={"linger": seconds}), name="lingering")(agent)
    return seen


async def test_entries_that_nobody_waits_for_are_read_together(bench: Bench, redis: Client, group: str) -> None:
    """Each of a slow trickle would be a read of its own; the first comes at once."""
    app = bench.app()
    seen = lingering(bench, app, 1.0)
    async with running(app):
        await bench.send(b"0")
        await seen.become(1)
        before = await commands(redis)
        for number in range(1, _PLACES // 2):
            await redis.xadd(bench.topic_name, {"event": str(number)})
        await seen.become(_PLACES // 2)
        assert await commands(redis) < before + _PLACES // 4


async def test_a_backlog_does_not_wait_for_company(bench: Bench, redis: Client, group: str) -> None:
    """What has brought as many as were asked for is followed at once, here by another hour's worth of waiting."""
    bench.settings |= {"block": "50ms"}
    app = bench.app()
    seen = lingering(bench, app, 3600.0)
    await bench.send(*(b"%d" % number for number in range(3 * _PLACES)))
    async with running(app):
        await seen.become(3 * _PLACES)
