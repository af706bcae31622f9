"""The backlog counts waiting entries by topic and consumer group. It tells an operator where work piles up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from .foreign import foreign_streams
from .layout import Layout
from .server import Client, Server, asking, run_script

__all__ = ["GroupBacklog", "TopicBacklog", "read_backlogs"]


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
