"""This module joins an answer that comes in pieces, though asked for whole.

They are server-sent events, or an object a line.

Some servers and gateways stream whatever is asked for, and some send comments or blank lines to keep a connection open
before the answer.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_PREFIX: Final = re.compile(r"(?:data:\s*)+")
_BLANK: Final = re.compile(r"\s*")
# Names under which pieces of one text follow each other. Of anything else the last one counts.
_TEXTS: Final = frozenset(
    {"content", "text", "refusal", "arguments", "reasoning_content", "reasoning", "thinking", "response"}
)
_COUNT: Final = re.compile("tokens?(_?count)?$", re.IGNORECASE)
_NUMBERED: Final = frozenset({"choices", "tool_calls", "candidates"})
_DECODER: Final = json.JSONDecoder(strict=False)
_DEEPEST: Final = 12
# A hostile stream costs no more than this; three activities have a few thousand pieces.
_MOST_PIECES: Final = 20_000
_MOST_LINES: Final = 5 * _MOST_PIECES


def pieces_in(text: str) -> list[object]:
    """Return the JSON values in a text that is more than one of them. Or the text is one with comments around it."""
    lines = _LINE_END.split(text, _MOST_LINES)[:_MOST_LINES]
    if any(line.startswith("data:") for line in lines):
        return list(islice(_events(lines), _MOST_PIECES))
    return list(islice(_values("\n".join(line for line in lines if not line.startswith(":"))), _MOST_PIECES))


def joined(pieces: Sequence[object]) -> object:
    """Return the one document that these are pieces of, or None."""
    document: object = None
    for piece in pieces[:_MOST_PIECES]:
        if isinstance(piece, dict):
            # The last of the Responses API's events repeats the whole answer.
            whole = isinstance(piece.get("response"), dict)
            document = piece["response"] if whole else merged(document, as_chat(piece))
    return document


def as_chat(piece: dict[str, Any]) -> dict[str, Any]:
    """Return an event of Anthropic's stream as a piece of a completion. Another one is left as it is."""
    delta: dict[str, Any] = {}
    match piece:
        case {"type": "message_start", "message": {"usage": usage, **message}}:
            return {"model": message.get("model"), "usage": usage}
        case {"type": "content_block_delta", "delta": {"text": str() as text}}:
            delta = {"content": text}
        case {"type": "content_block_delta", "delta": {"thinking": str() as text}}:
            delta = {"reasoning_content": text}
        case {"type": "content_block_delta", "delta": {"partial_json": str() as text}}:
            delta = {"tool_calls": [{"index": piece.get("index", 0), "function": {"arguments": text}}]}
        case {"type": "message_delta", "delta": {"stop_reason": reason}}:
            return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": piece.get("usage")}
        case {"type": "content_block_start" | "content_block_delta" | "content_block_stop" | "message_stop"}:
            return {}
        case _:
            return piece
    return {"choices": [{"index": 0, "delta": delta}]}


def _events(lines: Sequence[str]) -> Iterator[object]:
    data: list[str] = []
    for line in [*lines, ""]:
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").strip())
            # By the standard a blank line ends an event; not all servers send one.
            value = value_in(data[-1])
            if value is not None:
                yield value
                data = []
        elif not line.strip():
            value = value_in("\n".join(data))
            if value is not None:
                yield value
            data = []


def value_in(text: str) -> object:
    """Return the object or list that a text is, or None. A gateway may have put a second `data:` before it."""
    text = _PREFIX.sub("", text, count=1)
    try:
        return json.loads(text, strict=False) if text[:1] in {"{", "["} else None
    except (ValueError, RecursionError):
        return None


def _values(text: str) -> Iterator[object]:
    """Yield values until something else comes, which is no part of the answer."""
    at = 0
    while blank := _BLANK.match(text, at):
        try:
            value, at = _DECODER.raw_decode(text, blank.end())
        except (ValueError, RecursionError):
            return
        yield value


def merged(old: object, new: object, name: str = "", depth: int = 0) -> object:
    """Return a document with one more piece."""
    if new is None:
        return old
    if depth > _DEEPEST:
        return new
    match old, new:
        case ((int() | float()), (int() | float())) if _COUNT.search(name):
            # They only grow; a last piece of zeros counts nothing.
            return max(old, new)
        case dict(), dict():
            return {**old, **{key: merged(old.get(key), part, key, depth + 1) for key, part in new.items()}}
        case list(), list() if name in _NUMBERED:
            return _by_number(old, new, depth)
        case list(), list():
            return [*old, *new]
        case str(), str() if name in _TEXTS:
            return old + new
    return new


def _by_number(old: Sequence[object], new: Sequence[object], depth: int) -> list[object]:
    parts = {_number(part, at): part for at, part in enumerate(old)}
    for at, part in enumerate(new):
        number = _number(part, at)
        parts[number] = merged(parts.get(number), part, depth=depth + 1)
    return list(parts.values())


def _number(part: object, at: int) -> int:
    number = part.get("index") if isinstance(part, dict) else None
    return number if isinstance(number, int) else at
