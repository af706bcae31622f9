"""The layout of a stream entry, so that any language can read and write it.

    XADD job-requests * key 7c9e event '{"type": "..."}' h:traceparent 00-4bf9-...

| field | holds |
| --- | --- |
| `key` | the key's bytes; left out when there is no key |
| `event` | the value's bytes; empty or left out when there is no value |
| `h:<name>` | the header `<name>` |
| `ts` | the event's own time in milliseconds since 1970; left out, the time in the entry's ID counts |
| `data` | the value, where there is no `event` |
| `ce_<name>`, `ce-<name>`, `cloudEvents:<name>`, `content-type` | headers of these names (CloudEvents' binary mode) |

Other fields are ignored. An entry that lacks everything is still an entry: it decodes to a value of None, so that the
application decides about it. Nothing here needs Faust or redis-py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

__all__ = ["Entry", "Headers", "decode_entry", "encode_entry", "encode_flat"]

Headers = Mapping[str, bytes | str] | Iterable[tuple[str, bytes | str]]

_KEY = b"key"
_EVENT = b"event"
_TIMESTAMP = b"ts"
_HEADER = b"h:"
_DATA = b"data"
# By the bindings of CloudEvents for Kafka, HTTP and AMQP, as Redis has none; senders write each in any case.
_BINARY_MODE = re.compile(rb"ce[_-].|cloudevents[:_].|content[_-]?type$", re.IGNORECASE)
_KEY_AND_EVENT, _EVENT_ALONE = 4, 2  # how many fields and values such an entry has
_LONGEST_TIMESTAMP = 15  # digits up to the year 9999; Python refuses to convert very long strings of digits
_END_S = 253_402_300_799.0  # the last second of the year 9999, after which Python has no dates


class Entry(NamedTuple):
    """A decoded entry. `timestamp` is in seconds since 1970."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    timestamp: float


def encode_entry(
    key: bytes | None,
    value: bytes | None,
    headers: Headers | None = None,
    timestamp: float | None = None,
) -> dict[bytes, bytes]:
    """The fields to write with `XADD`.

    Args:
        key: decides the partition, and the order that is kept.
        value: the event; None is written as an empty `event`.
        headers: a name given twice keeps its last value, as a stream entry is a map.
        timestamp: the event's own time, in seconds since 1970.
    """
    fields: dict[bytes, bytes] = {}
    if key is not None:
        fields[_KEY] = key
    fields[_EVENT] = b"" if value is None else value
    if headers:
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        for name, header in pairs:
            fields[_HEADER + name.encode(errors="surrogateescape")] = (
                header.encode() if isinstance(header, str) else header
            )
    if timestamp is not None:
        fields[_TIMESTAMP] = str(round(timestamp * 1000)).encode()
    return fields


def encode_flat(
    key: bytes | None,
    value: bytes | None,
    headers: Headers | None = None,
    timestamp: float | None = None,
) -> list[bytes]:
    """As `encode_entry`, but flat, as commands want it: names and values in turn."""
    if value is not None and timestamp is None and not headers:
        # Most entries look like this, and sending in bulk comes here for every one of them.
        return [_EVENT, value] if key is None else [_KEY, key, _EVENT, value]
    return [part for pair in encode_entry(key, value, headers, timestamp).items() for part in pair]


def decode_entry(entry_id: bytes, fields: Sequence[bytes] | Mapping[bytes, bytes]) -> Entry:
    """Read an entry. Never fails, whatever somebody wrote by hand.

    Args:
        entry_id: its ID in the stream, whose first part is a time in milliseconds.
        fields: as the server sends them, flat (name, value, name, value, …), or as a mapping.
    """
    if isinstance(fields, Mapping):
        fields = [part for pair in fields.items() for part in pair]
    # Most entries have a key and an event, or an event alone, and this function runs for every one of them.
    if len(fields) == _KEY_AND_EVENT and fields[0] == _KEY and fields[2] == _EVENT:
        return Entry(fields[1], fields[3] or None, (), _written_at(entry_id))
    if len(fields) == _EVENT_ALONE and fields[0] == _EVENT:
        return Entry(None, fields[1] or None, (), _written_at(entry_id))
    key: bytes | None = None
    value: bytes | None = None
    data: bytes | None = None
    headers: list[tuple[str, bytes]] = []
    timestamp_ms: bytes | None = None
    for index in range(0, len(fields), 2):
        name = fields[index]
        if name == _EVENT:
            value = fields[index + 1] or None
        elif name == _KEY:
            key = fields[index + 1]
        elif name == _TIMESTAMP:
            timestamp_ms = fields[index + 1]
        elif name.startswith(_HEADER):
            headers.append((name[2:].decode(errors="surrogateescape"), fields[index + 1]))
        elif name == _DATA:
            data = fields[index + 1] or None
        elif _BINARY_MODE.match(name):
            headers.append((name.decode(errors="surrogateescape"), fields[index + 1]))
    return Entry(
        key,
        data if value is None else value,
        headers,
        _seconds(timestamp_ms) or _written_at(entry_id),
    )


def _seconds(timestamp_ms: bytes | None) -> float | None:
    # `isdigit` accepts ASCII digits only for bytes, so `int` cannot fail on what passes.
    if timestamp_ms is None or not timestamp_ms.isdigit() or len(timestamp_ms) > _LONGEST_TIMESTAMP:
        return None
    return min(int(timestamp_ms) / 1000, _END_S)


def _written_at(entry_id: bytes) -> float:
    # Whoever writes an entry may choose its ID, up to 64 bits of milliseconds.
    return min(int(entry_id.partition(b"-")[0]) / 1000, _END_S)
