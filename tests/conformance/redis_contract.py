"""What the transport promises on every server that speaks Redis, beside what every transport owes the agents."""

from __future__ import annotations

from streams.redis.server import close
from tests.conformance.contract import TransportContract
from tests.conformance.harness import Bench, collect, running, transport_of
from tests.waiting import wait_for


class RedisContract(TransportContract):
    """The promises. Subclasses are collected; this class is not."""

    async def test_workers_for_whom_nothing_comes_are_counted(self, bench: Bench) -> None:
        """An idle worker counts as a consumer until it stops, also in a group made anew; a dead one is forgotten.

        Before Redis 7.2 a read that brings nothing neither makes a consumer nor keeps it from looking dead.
        """
        apps = [bench.app(lease="100ms"), bench.app(lease="100ms")]
        for app in apps:
            collect(bench, app)
        transport, group = transport_of(apps[0]), apps[0].conf.id
        stream = transport.layout.stream(bench.topic_name, 0)
        client = transport.server.open()

        async def counts(workers: int) -> None:
            async def counted() -> bool:
                (topic,) = await transport.backlogs({bench.topic_name: [group]})
                return [one.consumers for one in topic.groups] == [workers]

            await wait_for(counted, what=f"{workers} workers to be counted")

        try:
            async with running(*apps):
                await counts(2)
                await client.execute_command("XGROUP CREATECONSUMER", stream, group, "dead")
                await counts(3)
                await counts(2)
                await client.execute_command("XGROUP DESTROY", stream, group)
                await counts(2)
                await apps[0].stop()
                await counts(1)
        finally:
            await close(client)
