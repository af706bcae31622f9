"""Operators see what waits in the broker, and the entries as they stand there.

Nothing is delivered, claimed or written by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from infra.errors import Refused
from producers.broker import Broker
from streams.jobs.stages import CONSUMER_GROUPS
from streams.redis.backlog import InvalidPlace, SeenEntry, TopicBacklog


@dataclass(frozen=True, slots=True)
class Lag:
    """The entries that wait in the broker.

    Attributes:
        topics: each with what its consumer groups have still to do.
        unread: a sentence for each part that no worker reads, with the fix.
    """

    topics: Sequence[TopicBacklog]
    unread: Sequence[str]


async def read_lag(broker: Broker) -> Lag:
    """Ask the broker what waits.

    Raises:
        DependencyDown: the broker is away.
        TransportError: it does not tell, or is Kafka, whose own tools do.
    """
    topics = await broker.backlogs()
    return Lag(topics, [sentence for topic in topics for sentence in _unread(topic)])


def _unread(topic: TopicBacklog) -> list[str]:
    return [
        *(
            f"No worker reads the stream {stream}: its writer counts the partitions of {topic.topic} differently. "
            "Put the same `partitions=` into every BROKER_URL."
            for stream in topic.unread
        ),
        *(
            f"No worker reads {topic.topic} for {group.group}: start `teamfit worker {group.group}`."
            for group in topic.groups
            if not group.consumers and (group.lag or group.pending)
        ),
    ]


MOST_ENTRIES: Final = 100
"""A page has no more: an entry may have a megabyte, and all of a page is read at once."""
_MOST_CHARACTERS: Final = 4_000
_MOST_HEADERS: Final = 50


@dataclass(frozen=True, slots=True)
class ShownEntry:
    """An entry as a list shows it.

    Attributes:
        key: usually a job's ID.
        event: its event as text, shortened; None where it has none, or is in the stream no more.
        size: the event's bytes.
        headers: the first 50, each shortened.
        gone: it is pending, and was removed from the stream.
        consumer: who it was given to, in a pending list; as are the next two.
        idle: how long ago it was given out, or its lease was renewed.
        deliveries: how often it was given out.
    """

    stream: str
    id: str
    written_at: datetime | None
    key: str | None
    event: str | None
    size: int
    headers: Mapping[str, str]
    gone: bool
    consumer: str | None
    idle: timedelta | None
    deliveries: int | None


@dataclass(frozen=True, slots=True)
class EntryPage:
    """A page has entries partition by partition, the oldest of each first."""

    entries: Sequence[ShownEntry]
    next: str | None


async def read_entries(
    broker: Broker, topic: str, *, group: str | None = None, limit: int = 20, cursor: str | None = None
) -> EntryPage:
    """Return a page of a topic's entries, or of a group's pending list.

    Raises:
        Refused: there is no such topic or group, the cursor is none, or the broker is Kafka, whose own tools tell.
        DependencyDown: the broker is away, or does not tell.
    """
    if topic not in CONSUMER_GROUPS:
        raise Refused("invalid_request", f"topic: {topic!r} is none; take one of {', '.join(sorted(CONSUMER_GROUPS))}")
    groups = CONSUMER_GROUPS[topic]
    if group is not None and group not in groups:
        raise Refused("invalid_request", f"group: {group!r} does not read {topic}; take one of {', '.join(groups)}")
    try:
        look = await broker.look_at(topic, group=group, limit=limit, after=cursor)
    except InvalidPlace as error:
        raise Refused("invalid_request", "cursor: is not the `next` of a page; leave it out to begin") from error
    return EntryPage([_shown(one) for one in look.entries], look.next)


def _shown(seen: SeenEntry) -> ShownEntry:
    entry = seen.entry
    value = entry.value if entry else None
    return ShownEntry(
        stream=seen.stream,
        id=seen.id,
        written_at=datetime.fromtimestamp(entry.timestamp, UTC) if entry else None,
        key=_text(entry.key) if entry else None,
        event=_text(value),
        size=len(value or b""),
        headers={name: _text(header) or "" for name, header in entry.headers[:_MOST_HEADERS]} if entry else {},
        gone=entry is None,
        consumer=seen.consumer,
        idle=seen.idle,
        deliveries=seen.deliveries,
    )


def _text(raw: bytes | None) -> str | None:
    # A character has at most four bytes; the rest of a large event is not decoded only to be cut off.
    if raw is None:
        return None
    text = raw[: _MOST_CHARACTERS * 4].decode(errors="backslashreplace").replace("\x00", "\\x00")
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
