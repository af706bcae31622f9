"""This module finds the fields of an event in bytes that are barely one. They say who is told of a dead letter.

Senders break events in few ways: JSON inside a JSON string, Base64 of the wrong alphabet, a batch of one, attributes
in headers without data, JSON that is cut off. What is found is what the sender wrote, unchecked. Nothing here raises.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from infra.errors import InvalidEvent
from streams.delivery.cloudevents import header_attributes, read_attributes, usual_base64

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
        found.setdefault("data", _object(_decoded(encoded)))
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


def _decoded(encoded: str) -> bytes:
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
