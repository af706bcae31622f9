"""Sending many records at once.

Faust's `topic.send` makes a promise, an event for the sensors and two callbacks for every message, which costs several
times what writing it does. `send_many` waits for all records together, so it needs none of that; the sensors still see
every record. On another transport it does the same with `topic.send`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple, cast

from faust import Schema
from faust.types import TP, HeadersArg, PendingMessage, RecordMetadata, TopicT

from .errors import NotAllSent
from .keys import partition_for
from .outbox import Answer
from .producer import Producer, entry_parts, outcome

__all__ = ["ProducerRecord", "send_many"]

# How many records to prepare before the outbox, and everybody else, gets a turn: about a millisecond.
_CHUNK = 250


class ProducerRecord(NamedTuple):
    """A record to send; the fields are those of `topic.send`. Without a partition the key decides."""

    value: Any
    key: Any = None
    headers: HeadersArg | None = None
    timestamp: float | None = None
    partition: int | None = None


async def send_many(topic: TopicT, records: Sequence[ProducerRecord]) -> list[RecordMetadata]:
    """Send records in order; returns where each was written, when all are.

    Raises:
        NotAllSent: some records were not written, or it is not known; the others were. It holds the answer for each.
    """
    producer = await topic.app.maybe_start_producer()
    if isinstance(producer, Producer):
        answers = await _send_chunks(topic, producer, records)
    else:
        answers = await _send_one_by_one(topic, records)
    failures = sum(1 for answer in answers if isinstance(answer, BaseException))
    if failures:
        raise NotAllSent(
            f"{failures} of {len(answers)} records were not sent, or it is not known whether they were", answers
        )
    return cast("list[RecordMetadata]", answers)


async def _send_one_by_one(topic: TopicT, records: Sequence[ProducerRecord]) -> list[RecordMetadata | BaseException]:
    sent = [
        await topic.send(
            key=record.key,
            value=record.value,
            partition=record.partition,
            timestamp=record.timestamp,
            headers=record.headers,
        )
        for record in records
    ]
    return await asyncio.gather(*sent, return_exceptions=True)


class _Group:
    """Records of one partition that are written together."""

    def __init__(self, tp: TP) -> None:
        self.tp = tp
        self.numbers: list[int] = []  # their places in what the caller gave
        self.parts: list[bytes] = []
        self.states: list[Any] = []  # what the sensors want back, if there are any
        self.answers: asyncio.Future[Sequence[Answer]]


async def _send_chunks(
    topic: TopicT, producer: Producer, records: Sequence[ProducerRecord]
) -> list[RecordMetadata | BaseException]:
    numbered = enumerate(records)
    on_the_way: list[_Group] = []
    while chunk := list(islice(numbered, _CHUNK)):
        for group in _prepare(topic, producer, chunk):
            group.answers = await producer.put(*group.tp, group.parts, len(group.numbers))
            on_the_way.append(group)
        await asyncio.sleep(0)
    results: list[Any] = [None] * len(records)
    for group in on_the_way:
        tp = group.tp
        answers = await group.answers
        for number, answer in zip(group.numbers, answers, strict=True):
            results[number] = outcome(tp, answer)
        _tell_sensors(topic, producer, group, results)
    return results


def _prepare(topic: TopicT, producer: Producer, chunk: Sequence[tuple[int, ProducerRecord]]) -> Iterable[_Group]:
    """Serialise records as `topic.send` does, those of each partition together."""
    name = topic.get_topic_name()
    channel = cast("Any", topic)  # Faust's interface of a topic lacks what its topics have
    partitions = producer.partitions(name)
    watched = any(True for _ in topic.app.sensors)
    plain = type(topic.schema) is Schema  # sends bytes as they are
    groups: dict[int, _Group] = {}
    for number, (value, key, headers, timestamp, wanted) in chunk:
        open_headers = channel.prepare_headers(headers) if headers else {}
        if plain and isinstance(value, bytes) and (key is None or isinstance(key, bytes)):
            raw_key, raw_value = key, value
        else:
            raw_key, open_headers = channel.prepare_key(key, None, None, open_headers)
            raw_value, open_headers = channel.prepare_value(value, None, None, open_headers)
        partition = partition_for(raw_key or b"", partitions) if wanted is None else wanted
        group = groups.get(partition)
        if group is None:
            group = groups[partition] = _Group(TP(name, partition))
        group.parts += entry_parts(raw_key, raw_value, open_headers, timestamp)
        group.numbers.append(number)
        if watched:
            message = PendingMessage(topic, raw_key, raw_value, partition, timestamp, open_headers, None, None, None)
            sizes = len(raw_key or b""), len(raw_value or b"")
            group.states.append(topic.app.sensors.on_send_initiated(producer, name, message, *sizes))
    return groups.values()


def _tell_sensors(topic: TopicT, producer: Producer, group: _Group, results: Sequence[Any]) -> None:
    sensors = topic.app.sensors
    for number, state in zip(group.numbers, group.states, strict=False):
        result = results[number]
        if isinstance(result, BaseException):
            sensors.on_send_error(producer, result, state)
        else:
            sensors.on_send_completed(producer, state, result)
