"""Leases, recovery and poison, against a real server."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import faust
from faust.types import TP

from streams.redis.delivery_tags import DeliveryTags
from streams.redis.health import Health
from streams.redis.lease import Lease
from streams.redis.partition import Partition
from streams.redis.server import run_script
from tests.conformance.harness import Bench, collect, running
from tests.integration.redis_transport.conftest import Client, hand_to_the_dead, leave_behind, pending
from tests.waiting import wait_for


async def test_entries_of_a_dead_consumer_are_taken_over_on_an_idle_stream(
    bench: Bench, redis: Client, group: str
) -> None:
    """What a dead consumer held is processed within a lease and a scan, though nothing new arrives."""
    await hand_to_the_dead(redis, bench.topic_name, group, 20)
    app = bench.app()
    seen = collect(bench, app)
    async with running(app):
        await seen.become(20, deadline_s=5.0)
    assert seen == [b"%d" % number for number in range(20)], "oldest first"
    assert await pending(redis, bench.topic_name, group) == {}


async def test_a_lease_that_is_about_to_run_out_is_waited_for(bench: Bench, redis: Client, group: str) -> None:
    """An entry that is silent for most of its lease is taken over when that ends, however seldom scans are."""
    await redis.xgroup_create(bench.topic_name, group, "0", mkstream=True)
    await leave_behind(redis, bench.topic_name, group, b"silent", times=1, idle_ms=6_000)
    app = bench.app(lease="10s", scan="1h")
    seen = collect(bench, app)
    async with running(app):
        await seen.become(1)
    assert seen == [b"silent"]


async def test_a_live_worker_keeps_its_entries(bench: Bench, redis: Client, group: str) -> None:
    """An event that takes four leases is started once, though another worker looks for expired entries."""
    apps = [bench.app(), bench.app()]
    started: list[bytes] = []
    done: list[bytes] = []

    def work(app: faust.App) -> None:
        @app.agent(bench.topic(app), name="work", concurrency=5)
        async def agent(stream: Any) -> None:
            async for value in stream:
                started.append(value)
                await asyncio.sleep(2.4)
                done.append(value)

    for app in apps:
        work(app)
    async with running(*apps):
        await bench.send(*(b"%d" % number for number in range(10)))
        await wait_for(lambda: len(done) == 10, what="all events")
    assert len(started) == 10


async def test_a_renewal_is_not_a_delivery(bench: Bench, redis: Client, group: str) -> None:
    """Renewing a lease sets the idle time to zero, and leaves the delivery count alone."""
    app = bench.app()
    gate = asyncio.Event()

    @app.agent(bench.topic(app))
    async def agent(stream: Any) -> None:
        async for _ in stream:
            await gate.wait()

    async with running(app):
        await bench.send(b"slow")
        begun = time.monotonic()
        await wait_for(lambda: time.monotonic() - begun > 1.5, what="two and a half leases")
        [(_, idle_ms, deliveries)] = (await pending(redis, bench.topic_name, group)).values()
        gate.set()
    assert idle_ms < 600
    assert deliveries == 1


async def test_a_renewal_takes_nothing_back(redis: Client) -> None:
    """A stalled worker that wakes renews only what it still owns, and learns what it lost."""
    written = await hand_to_the_dead(redis, "fenced", "group", 3)
    tags = DeliveryTags(lambda: None)
    partition = Partition(TP("fenced", 0), b"fenced", "group", "dead", tags)
    for entry_id in written:
        tags.deliver(entry_id)
    await redis.xclaim("fenced", "group", "alive", 0, [written[1]])
    await Lease(redis, lambda: [partition], 15.0, Health()).renew()
    owners = {entry_id: owner for entry_id, (owner, _, _) in (await pending(redis, "fenced", "group")).items()}
    assert owners == {written[0]: b"dead", written[1]: b"alive", written[2]: b"dead"}
    assert tags.held() == [written[0], written[2]]


async def test_a_late_acknowledgement_removes_nothing_from_others(redis: Client) -> None:
    """Acknowledging an entry that another worker has taken over leaves it pending for that worker."""
    written = await hand_to_the_dead(redis, "late", "group", 2)
    await redis.xclaim("late", "group", "alive", 0, [written[0]])
    lost = await run_script(redis, "acknowledge", b"late", "group", "dead", *written)
    assert lost == [written[0]]
    assert list(await pending(redis, "late", "group")) == [written[0]]


async def test_scripts_are_loaded_again_after_the_server_forgot_them(redis: Client) -> None:
    """A restarted server has an empty script cache; nothing fails because of it."""
    await hand_to_the_dead(redis, "forgotten", "group", 1)
    for _ in range(2):
        await redis.script_flush()
        assert await run_script(redis, "remove_consumers", b"forgotten", "group", "", 0) == 0


async def test_an_entry_delivered_too_often_becomes_a_dead_letter(bench: Bench, redis: Client, group: str) -> None:
    """Past `max_deliveries` an entry goes to the dead letters with its bytes and headers, and is acknowledged."""
    entry_id = await redis.xadd(bench.topic_name, {"key": b"k\x00", "event": b"\xffpoison", "h:trace": b"abc"})
    await redis.xgroup_create(bench.topic_name, group, "0")
    await redis.xreadgroup(group, "dead", {bench.topic_name: ">"})
    await redis.xclaim(bench.topic_name, group, "dead", 0, [entry_id], idle=60_000, retrycount=3, justid=True)
    dead_letters = f"dead-{bench.number}"
    app = bench.app(max_deliveries="3", dead_letter_topic=dead_letters)
    seen = collect(bench, app)
    async with running(app):
        await wait_for(lambda: redis.xlen(dead_letters), what="the dead letter")
        await bench.send(b"neighbour")
        await seen.become(1)
    assert seen == [b"neighbour"]
    [(_, letter)] = await redis.xrange(dead_letters)
    assert letter[b"key"] == b"k\x00"
    assert letter[b"event"] == b"\xffpoison"
    assert letter[b"h:trace"] == b"abc"
    assert letter[b"h:dead-letter-topic"] == bench.topic_name.encode()
    assert letter[b"h:dead-letter-group"] == group.encode()
    assert letter[b"h:dead-letter-entry-id"] == entry_id
    assert letter[b"h:dead-letter-reason"] == b"max_deliveries"
    assert letter[b"h:dead-letter-deliveries"] == b"3"
    assert await pending(redis, bench.topic_name, group) == {}


async def test_silent_consumers_with_nothing_pending_are_removed(redis: Client) -> None:
    """A consumer that holds nothing is forgotten; one that still holds entries is kept, or they would vanish."""
    await hand_to_the_dead(redis, "consumers", "group", 1)
    await redis.xgroup_createconsumer("consumers", "group", "idle")
    assert await run_script(redis, "remove_consumers", b"consumers", "group", "", 0) == 1
    assert [consumer["name"] for consumer in await redis.xinfo_consumers("consumers", "group")] == [b"dead"]


async def test_a_dead_consumer_is_forgotten_once_its_entries_are_taken(bench: Bench, redis: Client, group: str) -> None:
    """Names of dead workers do not pile up: with nothing pending, one is gone after ten leases."""
    bench.settings["lease"] = "150ms"
    await hand_to_the_dead(redis, bench.topic_name, group, 3)
    app = bench.app()
    seen = collect(bench, app)

    async def names() -> list[bytes]:
        return [consumer["name"] for consumer in await redis.xinfo_consumers(bench.topic_name, group)]

    async def alone() -> bool:
        found = await names()
        return len(found) == 1 and found != [b"dead"]

    async with running(app):
        await seen.become(3)
        await wait_for(alone, what="the dead consumer to be forgotten")


async def test_an_event_dropped_without_acknowledgement_comes_back_after_a_restart(
    bench: Bench, redis: Client, group: str
) -> None:
    """A worker that is cut off in the middle of an event hands it back, and that is not counted against the event."""
    bench.settings["drain"] = "100ms"
    first, second = bench.app(), bench.app()
    begun = asyncio.Event()

    @first.agent(bench.topic(first))
    async def agent(stream: Any) -> None:
        async for _ in stream:
            begun.set()
            await asyncio.sleep(60)

    seen = collect(bench, second)
    await bench.send(b"cut off", b"waiting")
    async with running(first):
        await asyncio.wait_for(begun.wait(), 5)
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 3, "a stop takes about its drain time"
    counts = [deliveries for _, _, deliveries in (await pending(redis, bench.topic_name, group)).values()]
    assert counts[:1] == [0]
    async with running(second):
        await seen.become(2, deadline_s=2.0)
    assert sorted(seen) == [b"cut off", b"waiting"]
    assert await pending(redis, bench.topic_name, group) == {}


async def test_an_event_whose_agent_fails_comes_back(bench: Bench, redis: Client, group: str) -> None:
    """An agent that acknowledges by hand and raises gets the event again after a lease, counted; its worker goes on."""
    app = bench.app()
    tries: list[bytes] = []

    @app.agent(bench.topic(app))
    async def agent(stream: Any) -> None:
        async for event in stream.noack().events():
            tries.append(event.value)
            if tries.count(b"fails twice") < 3 and event.value == b"fails twice":
                raise ValueError("not yet")
            event.ack()

    async with running(app):
        await bench.send(b"fails twice", b"fine")
        await wait_for(lambda: tries.count(b"fails twice") == 3, what="the third try")
        await wait_for(lambda: _none_pending(redis, bench.topic_name, group), what="its acknowledgement")
    assert tries.count(b"fine") == 1


async def _none_pending(redis: Client, topic: str, group: str) -> bool:
    return await pending(redis, topic, group) == {}


async def test_unstarted_entries_are_handed_back_uncounted(bench: Bench, redis: Client, group: str) -> None:
    """Entries that were fetched and never reached an agent go back at once, as if they had not been delivered."""
    app = bench.app()
    fast = asyncio.Event()
    seen = 0

    @app.agent(bench.topic(app))
    async def agent(stream: Any) -> None:
        nonlocal seen
        async for _ in stream:
            seen += 1
            if seen > 500:  # fast enough to have prefetched, then slow
                fast.set()
                await asyncio.sleep(0.3)

    await bench.send(*(b"%d" % number for number in range(2000)))
    async with running(app):
        await asyncio.wait_for(fast.wait(), 10)
    left = await pending(redis, bench.topic_name, group)
    assert all(idle_ms >= 600 for _, idle_ms, _ in left.values()), "claimable at once"
    assert {deliveries for _, _, deliveries in left.values()} <= {0}
