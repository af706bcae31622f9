"""This module reads any dead letter. Its bytes may be no event, no JSON, no UTF-8; its headers missing or wrong.

Nothing here raises for what it reads. The original key and event are kept byte for byte. What is said about them goes
to text columns, which take neither NUL nor half a surrogate pair and should not take a megabyte: such text is mended
and cut. Where the bytes were an event, or nearly, its fields are found, so that the letter can be found by them.

Senders break events in few ways: JSON inside a JSON string, Base64 of the wrong alphabet, a batch of one, attributes
in headers without data, JSON that is cut off. What is found is what the sender wrote, unchecked.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

from infra.clock import is_sane
from infra.errors import InvalidEvent
from infra.texts import storable
from streams.delivery.cloudevents import header_attributes, read_attributes, usual_base64
from streams.delivery.dead_letters import ERROR_TYPE, TRACEBACK, letter_id
from streams.delivery.deliveries import Delivery, Record
from streams.delivery.traces import trace_id_of
from streams.redis.dead_letter import (
    DEAD_LETTER_DELIVERIES,
    DEAD_LETTER_ERROR,
    DEAD_LETTER_GROUP,
    DEAD_LETTER_REASON,
    DEAD_LETTER_TIME,
    DEAD_LETTER_TOPIC,
)

# An event puts its attributes first; a regular expression over the rest would find nothing more.
_LONGEST_SEARCHED: Final = 65_536
_LARGEST_NUMBER: Final = 2**63
_NO_LETTER: Final = re.compile(r"[^A-Za-z0-9+/_-]")
_WRAPPINGS: Final = 3  # a list, a text and the event in it

_TEXT_FIELD: Final = re.compile(r'"(id|type|subject|organization_id|traceparent)"\s*:\s*"((?:[^"\\]|\\.)*)"')
_RUN_FIELD: Final = re.compile(r'"run"\s*:\s*(\d{1,10})\b')


def find_fields(raw: bytes | None, headers: Mapping[str, bytes]) -> dict[str, object]:
    """Return the attributes of an event by name, and its `organization_id`, as far as found."""
    try:
        document = read_attributes(raw, headers)
    except InvalidEvent:
        document = {**_document(raw or b""), **header_attributes(headers)}
    data = _unwrapped(document.get("data"))
    if "organization_id" in data:
        return {**document, "organization_id": _text(data["organization_id"])}
    return {**document, "organization_id": _text(document.get("organization_id"))}


def _document(raw: bytes) -> dict[str, Any]:
    found = _object(raw)
    if isinstance(encoded := found.get("data_base64"), str):
        found.setdefault("data", _object(_from_base64(encoded)))
    return found


def _object(raw: bytes) -> dict[str, Any]:
    return _unwrapped(_parsed(raw)) or _searched(raw[:_LONGEST_SEARCHED].decode(errors="replace"))


def _unwrapped(value: object) -> dict[str, Any]:
    """Return the object that a value is, or that stands alone in a list or a text; else an empty one."""
    for _ in range(_WRAPPINGS):
        if isinstance(value, str):
            value = _parsed(value)
        elif isinstance(value, list) and value:
            value = value[0]
    return value if isinstance(value, dict) else {}


def _parsed(text: bytes | str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _from_base64(encoded: str) -> bytes:
    letters = _NO_LETTER.sub("", encoded)
    letters = letters[: len(letters) - (len(letters) % 4 == 1)]  # one letter alone is no byte
    try:
        return base64.b64decode(usual_base64(letters))
    except (binascii.Error, ValueError):
        return b""


def _searched(text: str) -> dict[str, Any]:
    """Return what looks like fields in text that is no JSON, also where its quotes are escaped."""
    found: dict[str, Any] = {}
    for version in (text, text.replace('\\"', '"')):
        for name, value in _TEXT_FIELD.findall(version):
            found.setdefault(name, _parsed(f'"{value}"') or value)
        if run := _RUN_FIELD.search(version):
            found.setdefault("run", run.group(1))
    return found


def _text(value: object) -> object:
    """Return a number as text: an ID that was written without quotes."""
    return str(value) if type(value) is int and abs(value) < _LARGEST_NUMBER else value


# A header as a `json` column keeps it: text, or {"base64": "..."} when its bytes are not text that Postgres takes.
Header: TypeAlias = str | dict[str, str]

_UNKNOWN = "unknown"
_ENCODED = "base64:"
_LONGEST_NAME = 200  # names are indexed, and an index entry must fit a third of a page
_LONGEST_MESSAGE = 4_000
_LONGEST_TRACEBACK = 16_000
_LARGEST_INTEGER = 2**31 - 1  # of a Postgres `integer`


@dataclass(frozen=True, slots=True)
class FailedEvent:
    """A row of `failed_events`.

    Attributes:
        id: follows from topic, stage, key and event: the same entry failing again, or being told of again, is one row.
        failed_at: None when the letter does not say.
    """

    id: UUID
    topic: str
    stage: str
    reason: str
    key: bytes | None
    event: bytes | None
    headers: Mapping[str, Header]
    error_type: str
    error_message: str
    traceback: str | None
    attempts: int
    failed_at: datetime | None
    event_id: str | None
    event_type: str | None
    job_id: UUID | None
    run: int | None
    organization_id: str | None
    trace_id: str | None


def read_dead_letter(delivery: Delivery) -> FailedEvent:
    """Read a delivery of `dead-letters`, written by a stage or by the transport. Raises nothing."""
    headers = delivery.headers
    topic = _header(headers, DEAD_LETTER_TOPIC) or storable(delivery.topic, _LONGEST_NAME)
    stage = _header(headers, DEAD_LETTER_GROUP) or _UNKNOWN
    reason = _header(headers, DEAD_LETTER_REASON) or _UNKNOWN
    traceback = _decoded(headers.get(TRACEBACK))
    fields = find_fields(delivery.value, headers)
    job_id = _uuid(fields.get("subject")) or _uuid(_decoded(delivery.key))
    deliveries = _integer(_decoded(headers.get(DEAD_LETTER_DELIVERIES))) or 1
    return FailedEvent(
        id=letter_id(topic, stage, delivery.key, delivery.value, headers),
        topic=topic,
        stage=stage,
        reason=reason,
        key=delivery.key,
        event=delivery.value,
        headers=_original_headers(headers),
        error_type=_header(headers, ERROR_TYPE) or reason,
        error_message=storable(_decoded(headers.get(DEAD_LETTER_ERROR)) or "the letter does not say", _LONGEST_MESSAGE),
        # The end of a traceback says what broke.
        traceback=None if traceback is None else storable(traceback[-_LONGEST_TRACEBACK:], _LONGEST_TRACEBACK),
        attempts=max(delivery.attempt, deliveries),
        failed_at=_time(_decoded(headers.get(DEAD_LETTER_TIME))),
        event_id=_name(fields.get("id")),
        event_type=_name(fields.get("type")),
        job_id=job_id,
        run=_integer(fields.get("run")),
        organization_id=_name(fields.get("organization_id")),
        trace_id=trace_id_of(fields.get("traceparent")) or trace_id_of(_decoded(headers.get("traceparent"))),
    )


def _original_headers(headers: Mapping[str, bytes]) -> dict[str, Header]:
    return {header_name(name): _kept(value) for name, value in headers.items() if not name.startswith("dead-letter-")}


def failed_event_of(letter: Record) -> FailedEvent:
    """Return the row of a dead letter that will be written to its topic. Raises nothing."""
    return read_dead_letter(Delivery(letter.topic, letter.key, letter.value, letter.headers))


def header_name(name: str) -> str:
    """Return a header's name as a `jsonb` column keeps it; `original_name` gives it back exactly."""
    # Where a name is not UTF-8, it was read with `surrogateescape`.
    if name.isprintable() and not name.startswith(_ENCODED) and len(name) <= _LONGEST_NAME:
        return name
    return _ENCODED + base64.b64encode(name.encode(errors="surrogateescape")).decode()


def original_name(kept: str) -> str:
    """Return the header's name that `header_name` made text of."""
    if not kept.startswith(_ENCODED):
        return kept
    return base64.b64decode(kept.removeprefix(_ENCODED)).decode(errors="surrogateescape")


def original_value(kept: str | Mapping[str, str]) -> bytes:
    """Return the header's bytes, of a column's text or of its base64."""
    return kept.encode() if isinstance(kept, str) else base64.b64decode(kept["base64"])


def _kept(value: bytes) -> Header:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    return {"base64": base64.b64encode(value).decode()} if "\0" in text else text


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def _header(headers: Mapping[str, bytes], name: str) -> str | None:
    return _name(_decoded(headers.get(name)))


def _name(value: object) -> str | None:
    return storable(value, _LONGEST_NAME) if isinstance(value, str) and value else None


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _integer(value: object) -> int | None:
    """Return a positive number that an `integer` column takes, from a number or its digits."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(_LARGEST_INTEGER)):
        value = int(value)
    return value if type(value) is int and 0 < value <= _LARGEST_INTEGER else None


def _time(value: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value or "")
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment if is_sane(moment) else None
