"""A network that resets connections and swallows packets, between a worker and its server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.conformance.brokers import Broker, RedisBroker, valkey
from tests.conformance.harness import Bench, collect, running, transport_of
from tests.waiting import wait_for

pytestmark = pytest.mark.chaos


class Proxy:
    """Passes bytes on; resets its connections, or swallows everything, when told to."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()

    async def start(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        self._server.close()
        self.reset()
        self._open.set()

    def reset(self) -> None:
        """Cut every connection without a word."""
        for writer in list(self._writers):
            writer.transport.abort()

    def swallow(self) -> None:
        """From now on nothing arrives, in either direction, and no connection breaks."""
        self._open.clear()

    def pass_on(self) -> None:
        """What was swallowed arrives after all, and everything after it."""
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers |= {writer, up_writer}
            try:
                await asyncio.gather(self._pump(reader, up_writer), self._pump(up_reader, writer))
            finally:
                self._writers -= {writer, up_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisBroker]:
    """The server behind the proxy."""
    with valkey() as broker:
        yield broker


@pytest.fixture
async def proxy(server: RedisBroker) -> AsyncIterator[Proxy]:
    """The network."""
    proxy = Proxy(int(server.address.rsplit(":", 1)[1].split("/")[0]))
    proxy.port = await proxy.start()
    yield proxy
    await proxy.stop()


@pytest.fixture
def bench(proxy: Proxy, tmp_path: Path) -> Bench:
    """A topic that is reached through the network."""
    broker: Broker = RedisBroker("valkey", f"redis://127.0.0.1:{proxy.port}/0")
    return Bench(broker, tmp_path, settings={"lease": "3s", "scan": "200ms", "block": "500ms", "timeout": "1s"})


async def test_twenty_resets(server: RedisBroker, proxy: Proxy, bench: Bench) -> None:
    """Connections are reset twenty times under load: every event is processed, and the worker is well after each."""
    app = bench.app()
    seen = collect(bench, app)
    async with Redis.from_url(server.url()) as redis, running(app):
        for number in range(20):
            for event in range(20):
                await redis.xadd(bench.topic_name, {"event": f"{number}-{event}"})
                await asyncio.sleep(0.005)
            proxy.reset()
        await wait_for(lambda: len(set(seen)) == 400, deadline_s=15, what="all events")
        await wait_for(lambda: not transport_of(app).health(), deadline_s=10, what="a healthy worker")
        await wait_for(lambda: _nothing_pending(redis, bench), what="nothing pending")


async def test_a_black_hole(server: RedisBroker, proxy: Proxy, bench: Bench) -> None:
    """For ten seconds nothing arrives: the worker says so, asks seldom, and consumes within ten seconds of the end."""
    app = bench.app()
    seen = collect(bench, app)
    async with Redis.from_url(server.url()) as redis, running(app):
        await redis.xadd(bench.topic_name, {"event": "before"})
        await seen.become(1)
        before = await _reads(redis)
        proxy.swallow()
        await wait_for(transport_of(app).health, deadline_s=10, what="readiness to turn red")
        await asyncio.sleep(10)  # the fault's length, not a wait for something
        assert await _reads(redis) - before < 50, "reads stay bounded meanwhile"
        proxy.pass_on()
        await redis.xadd(bench.topic_name, {"event": "after"})
        await wait_for(lambda: b"after" in seen, deadline_s=10, what="the event after the black hole")
        await wait_for(lambda: _nothing_pending(redis, bench), what="nothing pending")


async def _nothing_pending(redis: Any, bench: Bench) -> bool:
    return bool((await redis.xpending(bench.topic_name, f"workers-{bench.number}"))["pending"] == 0)


async def _reads(redis: Any) -> int:
    return int((await redis.info("commandstats"))["cmdstat_xreadgroup"]["calls"])
