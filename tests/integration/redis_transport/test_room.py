"""An agent that works on several events at once says how many it has room for."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.conformance.harness import Bench, running
from tests.integration.redis_transport.conftest import Client
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
