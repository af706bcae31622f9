# ruff: noqa: PERF401 - an agent is a loop over its stream; a comprehension would hide that
"""Faust's own features on this transport."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import faust
import pytest

from streams.redis.errors import InvalidSettings
from tests.conformance.harness import Bench, collect, running, transport_of
from tests.integration.redis_transport.conftest import Client
from tests.waiting import wait_for


async def test_an_entry_written_by_hand_is_an_event(bench: Bench, redis: Client) -> None:
    """`XADD <topic> * key K event E` from any language reaches the agent."""
    app = bench.app()
    seen = collect(bench, app)
    async with running(app):
        await redis.execute_command("XADD", bench.topic_name, "*", "key", "K", "event", '{"a": 1}')
        await seen.become(1)
    assert seen == [b'{"a": 1}']


async def test_an_entry_without_an_event_is_delivered_and_acknowledged(bench: Bench, redis: Client, group: str) -> None:
    """A malformed entry reaches the agent as None, so that the application can keep it; the worker goes on."""
    app = bench.app()
    seen = collect(bench, app)
    async with running(app):
        await redis.xadd(bench.topic_name, {"evnt": "a typing error"})
        await redis.xadd(bench.topic_name, {"event": "next"})
        await seen.become(2)
    assert seen == [None, b"next"]
    assert (await redis.xpending(bench.topic_name, group))["pending"] == 0


async def test_json_values_and_models_work(bench: Bench) -> None:
    """Faust's codecs and records are decoded as on Kafka; several agents on one topic each get every event."""

    class Order(faust.Record, serializer="json"):
        number: int

    app = bench.app()
    topic = app.topic(bench.topic_name, value_type=Order, partitions=1)
    first: list[int] = []
    second: list[int] = []

    @app.agent(topic)
    async def one(orders: Any) -> None:
        async for order in orders:
            first.append(order.number)

    @app.agent(topic)
    async def two(orders: Any) -> None:
        async for order in orders:
            second.append(order.number)

    async with running(app):
        for number in range(5):
            await topic.send(value=Order(number=number))
        await wait_for(lambda: len(first) == len(second) == 5, what="both agents")
    assert first == second == [0, 1, 2, 3, 4]


async def test_one_worker_leads_and_hands_over_when_it_stops(bench: Bench) -> None:
    """Exactly one worker is the leader; when it stops, another is within seconds."""
    apps = [bench.app(leader_ttl="1s") for _ in range(3)]
    for app in apps:
        app.conf.topic_disable_leader = False
        collect(bench, app)

    def leaders() -> list[faust.App]:
        return [app for app in apps if app.is_leader()]

    async with running(*apps):
        await wait_for(lambda: len(leaders()) == 1, what="a leader")
        [leader] = leaders()
        await leader.stop()
        await wait_for(lambda: leaders() not in ([], [leader]), deadline_s=5.0, what="the next leader")
        assert len(leaders()) == 1


async def test_a_bad_broker_url_fails_at_start(bench: Bench) -> None:
    """A misspelt parameter of the URL is an error with its name, not ignored."""
    app = bench.app(leese="15s")
    with pytest.raises(InvalidSettings, match="leese"):
        _ = app.transport


async def test_the_apps_partitions_are_honoured(bench: Bench) -> None:
    """Faust's default of 8 partitions counts as one; what the app, the topic or the URL says counts."""
    folder = bench.folder
    plain = faust.App("plain", broker=bench.broker.url(), datadir=folder)
    explicit = faust.App("explicit", broker=bench.broker.url(partitions="orders:4"), datadir=folder, topic_partitions=8)
    assert transport_of(plain).layout.partitions("orders") == 1
    assert transport_of(explicit).layout.partitions("orders") == 4
    assert transport_of(explicit).layout.partitions("others") == 8


async def test_a_fresh_app_needs_nothing_but_the_url(bench: Bench, tmp_path: Any) -> None:
    """Fifteen lines of Faust on a redis:// URL work, with Faust's own defaults."""
    app = faust.App("hello", broker=bench.broker.url(), datadir=tmp_path, web_enabled=False)
    greetings = app.topic(bench.topic_name, value_type=str)
    heard: list[str] = []

    @app.agent(greetings)
    async def listen(stream: Any) -> None:
        async for greeting in stream:
            heard.append(greeting)

    async with running(app):
        await greetings.send(value="hello")
        await wait_for(lambda: heard == ["hello"], what="the greeting")


async def test_an_agent_answers_a_client(bench: Bench) -> None:
    """`agent.ask` from a process that is no worker gets the agent's answer, and its reply stream is removed after."""
    worker, client = bench.app(), bench.app()

    def double(app: faust.App) -> Any:
        @app.agent(app.topic(bench.topic_name, value_type=cast("Any", int), partitions=1), name="double")
        async def agent(stream: Any) -> Any:
            async for number in stream:
                yield number * 2

        return agent

    double(worker)
    asking = double(client)
    async with running(worker):
        assert await asyncio.wait_for(asking.ask(21), 10) == 42
        await client.stop()


async def test_a_client_does_not_lead(bench: Bench, redis: Client) -> None:
    """A process that only asks agents has no timers to lead; the worker that comes after it becomes the leader."""
    client, worker = bench.app(), bench.app()
    worker.conf.topic_disable_leader = False
    agents = []
    for app in (client, worker):

        async def echo(stream: Any) -> Any:
            async for value in stream:
                yield value

        agents.append(app.agent(bench.topic(app), name="echo")(echo))
    asking = asyncio.create_task(agents[0].ask(b"hello"))
    await wait_for(lambda: redis.exists(client.conf.reply_to), what="the client to listen")
    async with running(worker):
        await wait_for(worker.is_leader, deadline_s=5.0, what="the worker to lead")
        await asking
        await client.stop()


async def test_topics_may_be_added_while_a_worker_runs(bench: Bench) -> None:
    """A topic that is subscribed to later is read, and nothing that was already fetched is lost or done twice."""
    app = bench.app()
    app.topics._resubscribe_sleep_lock_seconds = 0.1  # type: ignore[attr-defined]
    seen: list[bytes] = []
    later: list[bytes] = []

    @app.agent(bench.topic(app))
    async def agent(stream: Any) -> None:
        async for value in stream:
            await asyncio.sleep(0.002)
            seen.append(value)

    async with running(app):
        sending = asyncio.create_task(bench.send(*(b"%d" % number for number in range(500))))
        await wait_for(lambda: len(seen) > 50, what="the first events")
        added = bench.topic(app, f"{bench.topic_name}-added")

        async def read_added() -> None:
            async for value in added.stream():
                later.append(value)

        reading = asyncio.create_task(read_added())
        await added.send(value=b"hello")
        await sending
        await wait_for(lambda: later == [b"hello"], what="the added topic")
        await wait_for(lambda: len(set(seen)) == 500, what="all events")
        reading.cancel()
    assert len(seen) == 500
