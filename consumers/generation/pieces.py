"""This module reads an answer while it comes.

It is a stream that was asked for, event by event, or a whole body.

A stream is folded into the one document that its events are pieces of, by the rules of `stream.joined`, and is then
read as any other body is. So what counts as an answer, and what it has cost, is the same for both.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import orjson

from consumers.generation.activities import Written
from consumers.generation.body import MOST_BYTES, MOST_STREAM_BYTES
from consumers.generation.stream import Frame, as_chat, merged, texts_of, value_in

# Called with the number and the title of an activity.
Told: TypeAlias = Callable[[int, str], None]

# What an event of nothing but text consists of; the server's other words in it are the same in each, or mean nothing.
_PLAIN: Final = frozenset(
    {"id", "object", "created", "model", "choices", "system_fingerprint", "service_tier", "usage", "obfuscation", "p"}
)
_PLAIN_CHOICE: Final = frozenset(
    {"index", "delta", "finish_reason", "logprobs", "native_finish_reason", "content_filter_results"}
)
_WHOLE: Final = (b"{", b"[", b"<")
_DONE: Final = b"[DONE]"
# What some write as the reason of each piece.
_NO_END: Final = frozenset({"", "null", "none"})
_FEWEST: Final = 3
_LEAST_CHARS: Final = 200
_BOM: Final = b"\xef\xbb\xbf"
# What JSON escapes as \ud800 to \udbff is the first half of a character.
_FIRST_HALF: Final = "\ud800"
_LAST_FIRST_HALF: Final = "\udbff"
# What keeping a line costs beside its bytes.
_LINE_BYTES: Final = 64
# How often the folded document is measured.
_MEASURED_BYTES: Final = 1024 * 1024


class Pieces:
    """One answer, as far as it has come.

    Args:
        told: called with each activity, when it is complete and valid.

    Attributes:
        is_stream: whether it comes in events.
        is_done: whether its last event has come, as most servers name it.
        has_come: whether no connection was lost before its end; whoever reads it sets this.
        is_too_long: whether it holds more than a body may.
    """

    def __init__(self, told: Told) -> None:
        self._told = told
        self._written = Written()
        self._frame = Frame()
        self._found = 0
        self._raw = bytearray()
        self._lines = bytearray()
        self._data: list[bytes] = []
        self._held = 0
        self._is_whole = False
        self._document: Any = None
        self._texts: list[str] = []
        self._repeats = True
        self._half = _Half()
        self._length = 0
        self._measured = 0
        self.is_stream = False
        self.is_done = False
        self.has_come = False
        self.is_too_long = False

    def add(self, chunk: bytes) -> bool:
        """Take the next bytes; return whether more are wanted."""
        self._length += len(chunk)
        if not self.is_stream:
            self._raw += chunk
            self._is_whole = self._is_whole or self._raw.lstrip(_BOM + b" \t\r\n").startswith(_WHOLE)
            self.is_too_long = len(self._raw) >= MOST_BYTES
        if not self._is_whole:
            self._lines += chunk
            end = self._lines.rfind(b"\n") + 1
            if end:
                lines = bytes(self._lines[:end])
                del self._lines[:end]
                self._read(lines)
            self._measure()
        return not self.is_too_long

    def end(self) -> bytes:
        """Return the body that has come, a stream's as one document."""
        if not self._is_whole:
            self._read(bytes(self._lines) + b"\n\n")
            self._lines.clear()
        return self._joined() if self.is_stream else bytes(self._raw)

    @property
    def says_something(self) -> bool:
        """Return whether a part of the answer has come."""
        return bool(self._texts) or bool(self._choices)

    @property
    def says_all(self) -> bool:
        """Return whether a stream has said how its answer ended, and what it cost."""
        usage = self._document.get("usage") if isinstance(self._document, dict) else None
        return bool(usage) and not self.is_cut_off

    @property
    def is_cut_off(self) -> bool:
        """Return whether it is a stream that did not come to its end."""
        ends = [self._choice] if self._choice else self._choices
        return self.is_stream and not (self.is_done or any(_ends(one.get("finish_reason")) for one in ends))

    @property
    def _choices(self) -> list[dict[str, Any]]:
        return _dicts(self._document.get("choices") if isinstance(self._document, dict) else None)

    @property
    def _choice(self) -> dict[str, Any]:
        return _first(self._choices)

    def _read(self, lines: bytes) -> None:
        plain: list[tuple[bytes, bytes]] = []
        for line in lines.removeprefix(_BOM).splitlines():
            text = None if self._data or self.is_done else self._frame.text_in(line)
            if text is not None:
                plain.append((line, text))
            elif line or self._data:
                self._take(plain)
                plain = []
                self._read_line(line)
        self._take(plain)

    def _take(self, plain: Sequence[tuple[bytes, bytes]]) -> None:
        """Add the texts of lines that hold nothing else."""
        texts = texts_of([one for _, one in plain])
        if texts is None:
            for line, _ in plain:
                self._read_line(line)
        else:
            self._add(texts)

    def _read_line(self, line: bytes) -> None:
        value = self._value_at(line)
        if value is None:
            return
        if not self.is_stream:
            self.is_stream = True
            self._raw.clear()
        for piece in value if isinstance(value, list) else (value,):
            if isinstance(piece, dict):
                # After its end nothing but its cost is a part of it.
                self._fold({"usage": piece.get("usage")} if self.is_done else piece, line)

    def _value_at(self, line: bytes) -> object:
        """Return the event that a line completes, or None."""
        if line.startswith(b"data:"):
            data = line[5:].strip()
            if data == _DONE:
                self.is_done = True
                return None
            self._data.append(data)
            self._held += len(data) + _LINE_BYTES
            # By the standard a blank line ends an event; not all servers send one.
            value = _value(data)
            if value is not None:
                self._data, self._held = [], 0
            return value
        if line.strip() or not self._data:
            return None
        value = _value(b"\n".join(self._data))
        self._data, self._held = [], 0
        return value

    def _fold(self, piece: dict[str, Any], line: bytes) -> None:
        piece = as_chat(piece)
        choices = _dicts(piece.get("choices"))
        choice = _first(choices)
        delta = choice.get("delta")
        for one in choices:
            if isinstance(one.get("delta"), dict):
                # Beside what is new some repeat all that came before.
                one.pop("message", None)
        if isinstance(delta, dict):
            text, rest = _text_of(delta.pop("content", None))
            self._add([text])
            if rest is not None:
                delta["content"] = rest
        if not self._choice or not _is_plain(piece, choice, delta):
            self._document = merged(self._document, piece)
        else:
            self._frame.learn(line, piece)

    def _add(self, texts: Sequence[str]) -> None:
        for text in filter(None, texts):
            self._repeats = self._repeats and text.startswith(self._texts[-1] if self._texts else "")
            self._texts.append(text)
        for activity in self._written.add(self._half.add("".join(texts))):
            self._found += 1
            self._told(self._found, activity.title)

    def _measure(self) -> None:
        """End a stream that holds more than a body may; its pieces have a frame each, which counts less."""
        if self._length >= MOST_STREAM_BYTES or len(self._lines) + self._held >= MOST_BYTES:
            self.is_too_long = True
        elif self.is_stream and self._length - self._measured >= _MEASURED_BYTES:
            self._measured = self._length
            self.is_too_long = len(self._joined()) >= MOST_BYTES

    def _is_repeated(self) -> bool:
        """Return whether each piece holds all that came before. No three pieces of an answer look so by chance."""
        texts = self._texts
        return self._repeats and len(texts) >= _FEWEST and len(texts[0]) < len(texts[-1]) >= _LEAST_CHARS

    def _joined(self) -> bytes:
        choice = self._choice
        if self._texts and choice:
            text = self._texts[-1] if self._is_repeated() else "".join(self._texts)
            choice["delta"] = {**(choice.get("delta") or {}), "content": text}
        return json.dumps(self._document).encode()


class _Half:
    """A character that JSON writes as two escapes may be cut in two; its first half waits for the second."""

    def __init__(self) -> None:
        self._kept = ""

    def add(self, text: str) -> str:
        """Return what can be read now, each character whole."""
        text, self._kept = self._kept + text, ""
        if _FIRST_HALF <= text[-1:] <= _LAST_FIRST_HALF:
            text, self._kept = text[:-1], text[-1]
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text


def _dicts(choices: object) -> list[dict[str, Any]]:
    return [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []


def _first(choices: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the choice with the number 0, wherever it stands, or the first that has no number."""
    numbered = next((one for one in choices if one.get("index") == 0), None)
    return numbered or next((one for one in choices if not isinstance(one.get("index"), int)), {})


def _text_of(content: object) -> tuple[str, object]:
    """Return the text of a piece, and what else it has: the parts of a list that are no text."""
    if isinstance(content, str):
        return content, None
    if not isinstance(content, list):
        return "", content
    texts = [one for one in content if isinstance(one, dict) and one.keys() == {"type", "text"}]
    if any(one["type"] != "text" or not isinstance(one["text"], str) for one in texts):
        return "", content
    return "".join(one["text"] for one in texts), [one for one in content if one not in texts] or None


def _is_plain(piece: dict[str, Any], choice: dict[str, Any], delta: object) -> bool:
    """Return whether a piece held nothing but its text, so that folding the rest would change nothing."""
    return (
        isinstance(delta, dict)
        and len(piece["choices"]) == 1
        and piece.keys() <= _PLAIN
        and choice.keys() <= _PLAIN_CHOICE
        and delta.keys() <= {"role"}
        and not (piece.get("usage") or choice.get("finish_reason") or choice.get("native_finish_reason"))
        and not choice.get("content_filter_results")
    )


def _ends(reason: object) -> bool:
    return bool(reason) and str(reason).strip().lower() not in _NO_END


def _value(data: bytes) -> object:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return value_in(data.decode("utf-8", "replace"))
