"""A look at entries shows what a stream or a pending list holds. Nothing is delivered, claimed or written by it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from .entry import Entry, decode_entry
from .layout import Layout
from .server import Client, Server, asking, run_script

__all__ = ["InvalidPlace", "Look", "SeenEntry", "look_at"]

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
