# ruff: noqa: PERF401 - an agent is a loop over its stream; a comprehension would hide that
"""What every transport owes the agents, as tests. A broker joins by subclassing, with its fixture `broker`.

A promise that a broker cannot make is declared in its `Features`, and the test says so when it skips.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from streams.redis.bulk import ProducerRecord, send_many
from tests.conformance.brokers import Broker
from tests.conformance.harness import Bench, Seen, collect, running
from tests.waiting import wait_for


class TransportContract:
    """The promises. Subclasses are collected; this class is not."""

    @pytest.fixture
    def bench(self, broker: Broker, tmp_path: Path) -> Bench:
        """A topic of the test's own on the broker."""
        return Bench(broker, tmp_path)

    async def test_events_arrive_whole(self, bench: Bench) -> None:
        """An event's key, value, headers and timestamp reach the agent as they were sent."""
        app = bench.app()
        arrived: list[Any] = []

        @app.agent(bench.topic(app))
        async def agent(stream: Any) -> None:
            async for event in stream.events():
                arrived.append(event)

        sent_at = 1_700_000_000.25
        async with running(app), bench.producing() as topic:
            await (await topic.send(key=b"\x00key", value=b"\xff\x00value", headers={"a": b"1"}, timestamp=sent_at))
            await wait_for(lambda: arrived, deadline_s=bench.broker.features.first_join_s, what="the event")
        [event] = arrived
        assert (event.key, event.value) == (b"\x00key", b"\xff\x00value")
        assert event.headers == {"a": b"1"}
        assert event.message.timestamp == pytest.approx(sent_at, abs=0.002)

    async def test_an_event_without_a_value_is_delivered(self, bench: Bench) -> None:
        """An event that has a key only reaches the agent with the value None; it is neither dropped nor an error."""
        app = bench.app()
        seen = collect(bench, app)
        async with running(app), bench.producing() as topic:
            await (await topic.send(key=b"key", value=None))
            await seen.become(1, deadline_s=bench.broker.features.first_join_s)
        assert seen == [None]

    async def test_one_agent_sees_events_in_the_order_they_were_sent(self, bench: Bench) -> None:
        """With one partition and concurrency 1, the order of sending is the order of processing."""
        app = bench.app()
        seen = collect(bench, app)
        values = [b"%d" % number for number in range(500)]
        async with running(app), bench.producing() as topic:
            await asyncio.gather(*[await topic.send(value=value) for value in values])
            await seen.become(500, deadline_s=bench.broker.features.first_join_s)
        assert seen == values

    async def test_many_records_are_sent_at_once(self, bench: Bench) -> None:
        """`send_many` writes as `topic.send` does: keys, headers and times arrive, and each key keeps its order."""
        bench.partitions = 4
        app = bench.app()
        arrived: dict[bytes, list[Any]] = {}

        @app.agent(bench.topic(app))
        async def agent(stream: Any) -> None:
            async for event in stream.events():
                arrived.setdefault(event.key, []).append(event)

        numbers = range(1000)
        records = [ProducerRecord(b"%d" % n, b"key-%d" % (n % 12), {"n": b"%d" % n}, 1_700_000_000.5) for n in numbers]
        async with running(app), bench.producing() as topic:
            written = await send_many(topic, records)
            await wait_for(
                lambda: sum(map(len, arrived.values())) == 1000,
                deadline_s=bench.broker.features.first_join_s,
                what="all records",
            )
        assert [metadata.topic for metadata in written] == [bench.topic_name] * 1000
        for key, events in arrived.items():
            assert [event.value for event in events] == [b"%d" % n for n in numbers if b"key-%d" % (n % 12) == key]
            assert all(event.headers == {"n": event.value} for event in events)
            assert events[0].message.timestamp == pytest.approx(1_700_000_000.5, abs=0.002)

    async def test_every_key_keeps_its_order_over_partitions(self, bench: Bench) -> None:
        """With several partitions, events of one key arrive in the order they were sent, and none is missed."""
        bench.partitions = 4
        app = bench.app()
        arrived: dict[bytes, list[bytes]] = {}

        @app.agent(bench.topic(app))
        async def agent(stream: Any) -> None:
            async for key, value in stream.items():
                arrived.setdefault(key, []).append(value)

        keys = [b"key-%d" % number for number in range(12)]
        async with running(app), bench.producing() as topic:
            for number in range(10):
                await asyncio.gather(*[await topic.send(key=key, value=b"%d" % number) for key in keys])
            await wait_for(
                lambda: sum(map(len, arrived.values())) == 120,
                deadline_s=bench.broker.features.first_join_s,
                what="all events",
            )
        assert arrived == {key: [b"%d" % number for number in range(10)] for key in keys}

    async def test_two_groups_each_get_everything(self, bench: Bench) -> None:
        """Two apps on one topic do not take events from each other."""
        first, second = bench.app("first"), bench.app("second")
        seen_first, seen_second = collect(bench, first), collect(bench, second)
        async with running(first, second):
            await bench.send(b"a", b"b", b"c")
            await seen_first.become(3, deadline_s=bench.broker.features.first_join_s)
            await seen_second.become(3, deadline_s=bench.broker.features.first_join_s)
        assert sorted(seen_first) == sorted(seen_second) == [b"a", b"b", b"c"]

    async def test_a_group_that_joins_late_reads_from_the_beginning(self, bench: Bench) -> None:
        """Events that were sent before a group existed, and read by another, are delivered to it."""
        early, late = bench.app("early"), bench.app("late")
        seen_early, seen_late = collect(bench, early), collect(bench, late)
        await bench.send(b"a", b"b")
        async with running(early):
            await seen_early.become(2, deadline_s=bench.broker.features.first_join_s)
        async with running(late):
            await seen_late.become(2, deadline_s=bench.broker.features.first_join_s)
        assert seen_late == [b"a", b"b"]

    async def test_concurrent_agents_work_at_the_same_time(self, bench: Bench) -> None:
        """An agent with concurrency N has N events under way at once."""
        app = bench.app()
        gate = asyncio.Event()
        under_way: list[bytes] = []

        @app.agent(bench.topic(app), concurrency=20)
        async def agent(stream: Any) -> None:
            async for value in stream:
                under_way.append(value)
                await gate.wait()

        async with running(app):
            await bench.send(*(b"%d" % number for number in range(30)))
            await wait_for(
                lambda: len(under_way) == 20, deadline_s=bench.broker.features.first_join_s, what="20 at once"
            )
            gate.set()
            await wait_for(lambda: len(under_way) == 30, what="the rest")

    async def test_batches_fill_up(self, bench: Bench) -> None:
        """`stream.take` gets as many events as it asks for while there are enough."""
        app = bench.app()
        batches: list[int] = []

        @app.agent(bench.topic(app))
        async def agent(stream: Any) -> None:
            async for values in stream.take(50, within=5.0):
                batches.append(len(values))

        await bench.send(*(b"%d" % number for number in range(200)))
        async with running(app):
            await wait_for(
                lambda: sum(batches) == 200, deadline_s=bench.broker.features.first_join_s, what="all in batches"
            )
        assert batches == [50] * 4

    async def test_a_batch_closes_in_time_and_is_acknowledged_whole(self, bench: Bench) -> None:
        """A batch that does not fill up is handed over in time; its events do not come back."""
        first, second = bench.app(), bench.app()
        batches: list[list[bytes]] = []

        @first.agent(bench.topic(first))
        async def agent(stream: Any) -> None:
            async for values in stream.take(50, within=0.3):
                batches.append(list(values))

        seen = collect(bench, second)
        await bench.send(b"a", b"b", b"c")
        async with running(first):
            await wait_for(
                lambda: sum(map(len, batches)) == 3, deadline_s=bench.broker.features.first_join_s, what="the batch"
            )
        async with running(second):
            await bench.send(b"new")
            await seen.become(1, deadline_s=bench.broker.features.first_join_s)
        assert seen == [b"new"]

    async def test_acknowledged_events_do_not_come_back(self, bench: Bench) -> None:
        """A worker that starts after another has acknowledged everything gets nothing but what is new."""
        before, after = bench.app(), bench.app()
        seen_before, seen_after = collect(bench, before), collect(bench, after)
        await bench.send(*(b"%d" % number for number in range(100)))
        async with running(before):
            await seen_before.become(100, deadline_s=bench.broker.features.first_join_s)
        async with running(after):
            await bench.send(b"new")
            await seen_after.become(1, deadline_s=bench.broker.features.first_join_s)
        assert seen_after == [b"new"]

    async def test_unacknowledged_events_come_back(self, bench: Bench) -> None:
        """What an agent took and never acknowledged is delivered again after a restart."""
        bench.settings = {"drain": "100ms", "lease": "1s", "scan": "100ms"}
        careless, careful = bench.app(), bench.app()
        careless.conf.stream_wait_empty = False
        seen_first, seen_again = collect(bench, careless, acknowledge=False), collect(bench, careful)
        await bench.send(b"a", b"b", b"c")
        async with running(careless):
            await seen_first.become(3, deadline_s=bench.broker.features.first_join_s)
        async with running(careful):
            await seen_again.become(3, deadline_s=bench.broker.features.first_join_s)
        assert sorted(seen_again) == [b"a", b"b", b"c"]

    async def test_one_unacknowledged_event_comes_back_alone(self, bench: Bench) -> None:
        """Events are acknowledged one by one: a gap does not bring back what came after it."""
        if not bench.broker.features.redelivers_while_others_run:
            pytest.skip(f"{bench.broker.name} acknowledges by offset: what comes after a gap comes back too")
        bench.settings = {"drain": "100ms", "lease": "1s", "scan": "100ms"}
        first, second = bench.app(), bench.app()
        seen: list[bytes] = []

        @first.agent(bench.topic(first))
        async def agent(stream: Any) -> None:
            async for event in stream.noack().events():
                seen.append(event.value)
                if event.value != b"b":
                    event.ack()

        seen_again = collect(bench, second)
        await bench.send(b"a", b"b", b"c")
        async with running(first):
            await wait_for(lambda: len(seen) == 3, what="all events")
        async with running(second):
            await bench.send(b"d")
            await seen_again.become(2)
        assert sorted(seen_again) == [b"b", b"d"]

    async def test_a_stopping_worker_finishes_what_it_started(self, bench: Bench) -> None:
        """On a graceful stop, started work ends and is acknowledged: the next worker does not repeat it."""
        stopping, next_one = bench.app(), bench.app()
        finished: list[bytes] = []
        begun = asyncio.Event()

        @stopping.agent(bench.topic(stopping))
        async def agent(stream: Any) -> None:
            async for value in stream:
                begun.set()
                await asyncio.sleep(0.5)
                finished.append(value)

        seen_next = collect(bench, next_one)
        await bench.send(b"started", b"waiting")
        async with running(stopping):
            await asyncio.wait_for(begun.wait(), bench.broker.features.first_join_s)
        assert finished == [b"started"]
        async with running(next_one):
            await seen_next.become(1, deadline_s=bench.broker.features.first_join_s)
        assert seen_next == [b"waiting"]

    async def test_workers_of_a_group_share_the_work(self, bench: Bench) -> None:
        """While one worker is busy, the others take what waits: nobody hoards a backlog."""
        if not bench.broker.features.shares_a_partition:
            pytest.skip(f"{bench.broker.name} gives a partition to one worker")
        apps = [bench.app() for _ in range(4)]
        done: list[int] = []

        def busy(number: int) -> None:
            app = apps[number]

            @app.agent(bench.topic(app), name="busy")
            async def agent(stream: Any) -> None:
                async for _ in stream:
                    await asyncio.sleep(0.2)
                    done.append(number)

        for number in range(4):
            busy(number)
        async with running(*apps):
            started = time.monotonic()
            await bench.send(*(b"%d" % number for number in range(20)))
            await wait_for(lambda: len(done) == 20, what="all events")
            elapsed = time.monotonic() - started
        assert sorted(done.count(number) for number in range(4)) == [5, 5, 5, 5]
        assert elapsed < 2.5, "20 events of 0.2 s on four workers take one second"

    async def test_sends_of_a_full_buffer_wait(self, bench: Bench) -> None:
        """A producer that is faster than the broker is slowed down, and every entry arrives."""
        bench.settings = {"send_buffer": "50"}
        app = bench.app()
        seen: Seen = collect(bench, app)
        async with running(app), bench.producing() as topic:
            futures = [await topic.send(value=b"%d" % number) for number in range(2000)]
            await asyncio.gather(*futures)
            await seen.become(2000, deadline_s=bench.broker.features.first_join_s)
        assert len(set(seen)) == 2000
