"""This module joins an answer that comes in pieces.

It may have been asked for whole. The pieces are server-sent events, or an object a line. Some servers and gateways
stream whatever is asked for, and some send comments or blank lines to keep a connection open before the answer.

Most events of one stream differ in their text alone. So the frame, which is what is around it, is learned once and cut
off unread, and the texts of one read are decoded at once: an event then costs a fraction of what its JSON would.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

import orjson

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


_CONTENT: Final = re.compile(rb'"content":\s*("(?:[^"\\]|\\.)*")')
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
# A stream in which each event differs in something else has none.
_MOST_TRIES: Final = 3
# Nothing that a server would write where a text belongs.
_STAND_IN: Final = "\u2603 teamfit"


class Frame:
    """Knows what stands around the text in one stream's events, once one has shown it."""

    def __init__(self) -> None:
        self._before = b""
        self._after = b""
        self._tries = 0

    def learn(self, line: bytes, piece: object) -> None:
        """Learn from a line that holds an event of nothing but text.

        Args:
            line: as it came, with its `data:`.
            piece: the event without that text.
        """
        found = _CONTENT.search(line)
        if found is None or self._tries == _MOST_TRIES:
            return
        self._tries += 1
        before, after = line[: found.start(1)], line[found.end(1) :]
        # The event is the same whatever text stands there: another one is tried.
        if _without_text(before + orjson.dumps(_STAND_IN) + after) == piece:
            self._before, self._after = before, after

    def text_in(self, line: bytes) -> bytes | None:
        """Return a line's text, a JSON string. None: the line has to be read."""
        if not self._before or not (line.startswith(self._before) and line.endswith(self._after)):
            return None
        found = _STRING.fullmatch(line, len(self._before), len(line) - len(self._after))
        return None if found is None else found[0]


def texts_of(strings: Sequence[bytes]) -> list[str] | None:
    """Return what JSON strings say. None: one of them is none after all."""
    if not strings:
        return []
    try:
        texts: list[str] = orjson.loads(b"[%s]" % b",".join(strings))
        return texts
    except orjson.JSONDecodeError:
        return None


def _without_text(line: bytes) -> Any:  # noqa: ANN401
    """Return a line's event without the text, which must be the stand-in; None: it is another."""
    try:
        piece = orjson.loads(line.removeprefix(b"data:"))
        text = piece["choices"][0]["delta"].pop("content")
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return None
    return piece if text == _STAND_IN else None
