"""This module finds the completion in an answer's body with status 200. Anything may stand around it.

A body is one JSON object with `choices`; or the pieces of a stream, a wrapper around it, the body of another API, or
the activities alone. All of it becomes one shape here, so that whoever reads an answer reads choices and messages.
"""

import base64
import binascii
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, TypeAlias

import orjson

from consumers.generation.body import MOST_BYTES
from consumers.generation.choice import Choice
from consumers.generation.declining import declines
from consumers.generation.no_completion import other_body
from consumers.generation.packing import unpack, wanted_in
from consumers.generation.stream import joined, pieces_in

Json: TypeAlias = Mapping[str, Any]

# Cloudflare, gateways and functions put an answer into one more object, or as a text into one.
_DEEPEST: Final = 3
# A hostile body costs no more than this: a wrapper has few fields, and no second choice is asked for.
_MOST_FIELDS: Final = 100
_MOST_CHOICES: Final = 8
_MOST_CHUNKS: Final = 20_000
_HEAD_CHARS: Final = 64
_NOTHING: Final = "the endpoint's answer is no chat completion"
# How gzip and zlib begin.
_COMPRESSED: Final = (b"\x1f\x8b", b"\x78\x01", b"\x78\x9c", b"\x78\xda")
_EITHER: Final = zlib.MAX_WBITS | 32
# A completion behind what a script or a guard has written before it.
_WITHIN: Final = re.compile(r'\{\s*"(?:id|object|created|model|choices)"\s*:')
_DECODER: Final = json.JSONDecoder(strict=False)
# The frame of HTTP/1.1's chunks, which a gateway has left in the body.
_CHUNK: Final = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")
_IN_BASE64: Final = "eyJ"  # {"
_CHOICE_FIELDS: Final = frozenset({"message", "delta", "text", "content", "finish_reason"})


@dataclass(slots=True)
class Envelope:
    """A body.

    Attributes:
        document: the object that it is; what stands in a wrapper and around it is in one.
        choices: None if it is no completion.
        kinds: what was taken off.
        hint: which address to set, if it is the body of another API.
        problem: why it holds no object at all.
    """

    document: Json = field(default_factory=dict)
    choices: list[Choice] | None = None
    kinds: set[str] = field(default_factory=set)
    hint: str = ""
    problem: str = ""


def open_envelope(content: bytes) -> Envelope:
    """Return what a body holds. Raises nothing."""
    kinds: set[str] = set()
    content = _unframed(content)
    document = _read(content, kinds)
    if isinstance(document, str) and content.lstrip()[:1] == b'"':
        document = _read(document.encode(errors="replace"), kinds)
    if isinstance(document, list):
        envelope = _in_list(document)
    elif isinstance(document, dict):
        envelope = _in_object(document)
    else:
        envelope = _in_text(document if isinstance(document, str) else "", content)
    envelope.kinds |= kinds
    return envelope


def _unframed(content: bytes) -> bytes:
    """Return a body without what HTTP has put around it, and a gateway's headers do not name."""
    for _ in range(2):
        if content.startswith(_COMPRESSED):
            try:
                content = zlib.decompressobj(_EITHER).decompress(content, MOST_BYTES)
            except zlib.error:
                return content
    parts: list[bytes] = []
    at = 0
    while len(parts) < _MOST_CHUNKS and (chunk := _CHUNK.match(content, at)) is not None:
        end = chunk.end() + int(chunk[1], 16)
        parts.append(content[chunk.end() : end])
        at = end + len(b"\r\n")
    return b"".join(parts) or content


def _read(content: bytes, kinds: set[str]) -> object:
    """Return the JSON of a body, or its text if it is none."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        # More lenient, and slower: half a surrogate pair, bytes that are no UTF-8, a byte order mark, a stream.
        text = content.decode(_encoding(content), "replace").strip("\ufeff\0 \t\r\n")
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        pieces = pieces_in(text)
    kinds |= {"stream"} if pieces else set()
    return joined(pieces) if pieces else _within(text, kinds) or text


def _within(text: str, kinds: set[str]) -> object:
    """Return the completion in a text that is more than it, or None."""
    begins = _WITHIN.search(text)
    try:
        document, _ = _DECODER.raw_decode(text, begins.start()) if begins else (None, 0)
    except (ValueError, RecursionError):
        return None
    is_completion = isinstance(document, dict) and isinstance(document.get("choices"), list)
    kinds |= {"envelope"} if is_completion else set()
    return document if is_completion else None


def _encoding(content: bytes) -> str:
    """Return UTF-16 or UTF-32 where a body begins so with JSON, else UTF-8."""
    found = json.detect_encoding(content)
    return found if content[:8].strip(b"\xff\xfe\0").startswith((b"{", b"[")) else "utf-8-sig"


def _in_list(documents: list[Any]) -> Envelope:
    document = joined(documents)
    if not isinstance(document, dict):
        return Envelope(problem=_NOTHING)
    envelope = _in_object(document)
    if envelope.choices is None and (bare := _in_object({"activities": documents})).choices and len(documents) > 1:
        return bare
    envelope.kinds |= {"stream"} if len(documents) > 1 else set()
    return envelope


def _in_object(document: Json) -> Envelope:
    envelope = _opened(document, _DEEPEST)
    if envelope is None:
        kinds: set[str] = set()
        # Without anything around them.
        wanted = wanted_in(document, kinds)
        choices = [Choice({}, {"content": wanted})] if wanted else None
        envelope = Envelope(document, choices, {"bare", *kinds} if wanted else set())
    return envelope


def _opened(document: Json, depth: int) -> Envelope | None:
    choices = _choices(document.get("choices"))
    if choices is not None:
        return _with(document, choices)
    other = other_body(document)
    if other is not None:
        return Envelope(document, [_choice(one) for one in other.choices], {other.kind}, other.hint)
    if depth == 0:
        return None
    parts = {name: _object(part) for name, part in islice(document.items(), _MOST_FIELDS)}
    opened = {name: one for name, part in parts.items() if part and (one := _opened(part, depth - 1))}
    if len(opened) != 1:
        return None
    [(name, envelope)] = opened.items()
    around = {key: part for key, part in document.items() if key != name}
    envelope.document = {**around, **envelope.document}
    envelope.kinds.add("envelope")
    return envelope


def _object(part: object) -> Json:
    if isinstance(part, list) and len(part) == 1:
        [part] = part
    if isinstance(part, str) and part.startswith(("{", _IN_BASE64)):
        try:
            part = orjson.loads(base64.b64decode(part) if part.startswith(_IN_BASE64) else part)
        except (orjson.JSONDecodeError, binascii.Error, ValueError):
            return {}
    return part if isinstance(part, dict) else {}


def _choices(stated: object) -> list[Any] | None:
    match stated:
        case list():
            return stated[:_MOST_CHOICES] or [{}]
        case dict():
            return [stated] if _CHOICE_FIELDS & stated.keys() else list(stated.values())[:_MOST_CHOICES] or [{}]
    return None


def _with(document: Json, stated: list[Any]) -> Envelope:
    choices = [_choice(one) for one in stated]
    is_usual = isinstance(document["choices"], list)
    has_delta = any(isinstance(one, dict) and "delta" in one and "message" not in one for one in stated)
    return Envelope(document, choices, ({"delta"} if has_delta else set()) | (set() if is_usual else {"choices"}))


def _choice(stated: object) -> Choice:
    if not isinstance(stated, dict):
        return Choice({"text": stated}, {})
    places = [stated.get(name) for name in ("message", "delta", "messages")]
    lasts = [(one[-1] if one else None) if isinstance(one, list) else one for one in places]
    messages = [{"content": one} if isinstance(one, str) else one for one in (*lasts, stated)]
    held = [one for one in messages if isinstance(one, dict)]
    message = next((one for one in held if any(value for name, value in one.items() if name != "role")), {})
    return Choice(stated, {} if message is stated and "content" not in stated else message)


def _in_text(text: str, content: bytes) -> Envelope:
    """Return the answer that a text is which is no JSON, or why it is none."""
    text = text.strip()
    # What begins as JSON is broken, and what begins as a page is one.
    if text and content.lstrip()[:1] not in {b"{", b"[", b"<"} and (unpack(text).value or declines(text)):
        return Envelope(choices=[Choice({}, {"content": text})], kinds={"bare"})
    problem = "the endpoint's answer is not JSON" if text else _NOTHING
    if "\ufffd" in text[:_HEAD_CHARS]:
        problem += " and no text, as if compressed by br or zstd, which is not asked for"
    if len(content) >= MOST_BYTES:
        problem = f"the endpoint's answer is longer than {MOST_BYTES:,} bytes"
    elif not content.strip():
        problem = "the endpoint's answer is empty"
    return Envelope(problem=problem)
