"""An operator sees what waits for each topic and group, and the entries themselves.

Nothing is delivered, claimed or written by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from .entry import Entry, decode_entry
from .layout import Layout, foreign_streams
from .server import Client, Server, asking, run_script

__all__ = ["GroupBacklog", "InvalidPlace", "Look", "SeenEntry", "TopicBacklog", "look_at", "read_backlogs"]

_BEGIN: Final = "0-0"
_PLACE: Final = re.compile(r"([0-9]{1,6}):([0-9]{1,20}-[0-9]{1,20})")
_LARGEST: Final = 2**64 - 1


class InvalidPlace(ValueError):
    """A text is not where a look has ended."""


@dataclass(frozen=True, slots=True)
class SeenEntry:
    """An entry as it stands in its stream.

    Attributes:
        stream: the key of its partition.
        id: its ID there.
        entry: what it holds; None where it is pending, and is in the stream no more.
        consumer: who it was given to; None in a look at all entries, as the next two.
        idle: how long ago that was, or that its lease was renewed.
        deliveries: how often it was given out.
    """

    stream: str
    id: str
    entry: Entry | None
    consumer: str | None = None
    idle: timedelta | None = None
    deliveries: int | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """Entries in the order of partitions, the oldest of each first.

    `next` is where to go on, if there is more.
    """

    entries: Sequence[SeenEntry]
    next: str | None


async def look_at(
    server: Server, layout: Layout, topic: str, *, group: str | None, limit: int, after: str | None
) -> Look:
    """As `Transport.look_at`, of a server and its layout."""
    partition, last = _place(after)
    async with asking(server, "show its entries") as client:
        found: list[SeenEntry] = []
        # One more than is shown tells whether there are more.
        for number, stream in enumerate(layout.streams(topic)[partition:], partition):
            begin = last if number == partition else _BEGIN
            rows = await _read(client, stream, group, begin, limit + 1 - len(found))
            if len(found) + len(rows) > limit:
                found += rows[: limit - len(found)]
                return Look(found, _next(number, begin, found, stream))
            found += rows
        return Look(found, None)


async def _read(client: Client, stream: bytes, group: str | None, after: str, count: int) -> list[SeenEntry]:
    rows = await run_script(client, "look", stream, group or "", after, count)
    return [
        SeenEntry(
            stream.decode(),
            entry_id.decode(),
            decode_entry(entry_id, fields) if fields else None,
            *((consumer.decode(errors="replace"), timedelta(milliseconds=idle), deliveries) if group else ()),
        )
        for entry_id, fields, consumer, idle, deliveries in rows
    ]


def _next(partition: int, begin: str, found: Sequence[SeenEntry], stream: bytes) -> str:
    last = found[-1].id if found and found[-1].stream == stream.decode() else begin
    return f"{partition}:{last}"


def _place(after: str | None) -> tuple[int, str]:
    if after is None:
        return 0, _BEGIN
    read = _PLACE.fullmatch(after)
    if read is None or any(int(part) > _LARGEST for part in read[2].split("-")):
        raise InvalidPlace(after)
    return int(read[1]), read[2]


@dataclass(frozen=True, slots=True)
class GroupBacklog:
    """A consumer group has this much left to do in a topic.

    Attributes:
        group: its name.
        consumers: workers that read; one that died counts for ten leases, and until another has taken its entries over.
        pending: entries delivered and not yet acknowledged.
        lag: entries never delivered; None where the server cannot tell (Redis 6.2, or after an XDEL).
        oldest_pending: how long ago the oldest pending entry was written; None if nothing is pending.
    """

    group: str
    consumers: int = 0
    pending: int = 0
    lag: int | None = 0
    oldest_pending: timedelta | None = None


@dataclass(frozen=True, slots=True)
class TopicBacklog:
    """A topic, all its partitions together.

    Attributes:
        topic: its name.
        length: entries in its streams, those included that every group has acknowledged and that are not trimmed yet.
        groups: those that were asked for and those that exist beside them.
        unread: keys of streams beside them, written by somebody who counts the topic's partitions differently.
    """

    topic: str
    length: int
    groups: Sequence[GroupBacklog]
    unread: Sequence[str]


async def read_backlogs(server: Server, layout: Layout, topics: Mapping[str, Iterable[str]]) -> list[TopicBacklog]:
    """As `Transport.backlogs`, of a server and its layout."""
    async with asking(server, "tell its backlog") as client:
        found = []
        for topic, groups in topics.items():
            partitions = [await _partition(client, key) for key in layout.streams(topic)]
            unread = await foreign_streams(client, layout.foreign_stream_keys(topic))
            found.append(_summed(topic, groups, partitions, unread))
        return found


async def _partition(client: Client, stream: bytes) -> tuple[int, dict[str, GroupBacklog]]:
    length, now_ms, rows = await run_script(client, "backlog", stream)
    groups = {}
    for name, consumers, pending, lag, oldest_id in rows:
        age = timedelta(milliseconds=now_ms - int(oldest_id.partition(b"-")[0])) if oldest_id else None
        groups[name.decode()] = GroupBacklog(name.decode(), consumers, pending, None if lag < 0 else lag, age)
    return length, groups


def _summed(
    topic: str,
    groups: Iterable[str],
    partitions: Sequence[tuple[int, dict[str, GroupBacklog]]],
    unread: Sequence[str],
) -> TopicBacklog:
    names = dict.fromkeys([*groups, *(name for _, found in partitions for name in found)])
    length = sum(length for length, _ in partitions)
    return TopicBacklog(topic, length, [_of_group(name, partitions) for name in names], unread)


def _of_group(name: str, partitions: Sequence[tuple[int, dict[str, GroupBacklog]]]) -> GroupBacklog:
    parts = [found.get(name) or GroupBacklog(name, lag=length) for length, found in partitions]
    lags = [part.lag for part in parts]
    ages = [part.oldest_pending for part in parts if part.oldest_pending is not None]
    return GroupBacklog(
        name,
        # Every worker reads every partition, but may have reached some of them only.
        consumers=max(part.consumers for part in parts),
        pending=sum(part.pending for part in parts),
        lag=None if None in lags else sum(lag for lag in lags if lag is not None),
        oldest_pending=max(ages, default=None),
    )
