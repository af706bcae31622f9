"""Sending many records at once: what became of each."""

from __future__ import annotations

from typing import Any

import pytest
from faust.sensors import Monitor

from streams.redis.bulk import ProducerRecord, send_many
from streams.redis.errors import EntryRefused, NotAllSent
from streams.redis.keys import stream_key
from streams.redis.producer import EntryMetadata
from tests.conformance.harness import Bench
from tests.integration.redis_transport.conftest import Client


def _records(count: int) -> list[ProducerRecord]:
    return [ProducerRecord(b"%d" % number, partition=number % 2) for number in range(count)]


async def test_each_record_is_told_where_it_was_written(bench: Bench, redis: Client) -> None:
    """The answers are in the order of the records, and name the entries that the server holds."""
    bench.partitions = 2
    async with bench.producing() as topic:
        written: list[Any] = await send_many(topic, _records(1200))
    for partition in (0, 1):
        entries = await redis.xrange(_stream(bench, partition))
        told = [one for one in written if one.partition == partition]
        assert [one.entry_id.encode() for one in told] == [entry_id for entry_id, _ in entries]
        assert [fields[b"event"] for _, fields in entries] == [b"%d" % n for n in range(1200) if n % 2 == partition]


async def test_what_is_refused_does_not_hide_what_was_written(bench: Bench, redis: Client) -> None:
    """When one partition cannot be written, the error says which records were sent and which were not."""
    bench.partitions = 2
    await redis.set(_stream(bench, 1), "no stream")
    async with bench.producing() as topic:
        with pytest.raises(NotAllSent, match="2 of 4 records") as refused:
            await send_many(topic, _records(4))
    kinds = [type(answer) for answer in refused.value.answers]
    assert kinds == [EntryMetadata, EntryRefused, EntryMetadata, EntryRefused]
    assert "WRONGTYPE" in str(refused.value.answers[1])


async def test_sensors_see_every_record(bench: Bench, redis: Client) -> None:
    """A monitor counts each record that was sent, and each that was not, as it does for `topic.send`."""
    bench.partitions = 2
    await redis.set(_stream(bench, 1), "no stream")
    async with bench.producing() as topic:
        monitor = Monitor()
        topic.app.sensors.add(monitor)
        with pytest.raises(NotAllSent):
            await send_many(topic, _records(10))
    assert (monitor.messages_sent, monitor.send_errors) == (10, 5)
    assert len(monitor.send_latency) == 5


async def test_values_are_serialised_as_topic_send_does(bench: Bench, redis: Client) -> None:
    """A topic of JSON gets JSON."""
    async with bench.producing() as plain:
        topic = plain.app.topic(bench.topic_name, value_serializer="json", key_serializer="raw")
        await send_many(topic, [ProducerRecord({"n": 1}, key="key")])
        await (await topic.send(key="key", value={"n": 1}))
    [(_, bulk), (_, single)] = await redis.xrange(bench.topic_name)
    assert bulk == single == {b"key": b"key", b"event": b'{"n":1}'}


def _stream(bench: Bench, partition: int) -> str:
    return stream_key(bench.topic_name, partition, 2, "")
