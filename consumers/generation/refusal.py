"""An error response names codes, parameters, words, and a wait, in whatever shape.

Providers nest errors as objects, lists, strings and numbers, and name the same thing in ten ways. All of it is read
into one flat record, bounded and cleaned, so that whoever decides who is to blame looks at words, never at shapes.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Final

import orjson

from consumers.generation.rate_limits import in_milliseconds, named_reset, retry_after, spoken_wait, wait_of

# What an error says stands at its beginning; a page of megabytes costs no more than this.
_READ_BYTES: Final = 64 * 1024
_MOST_PARTS: Final = 300
_DEEPEST: Final = 12
_WORD_CHARS: Final = 80
_TEXT_CHARS: Final = 2_000
_SHOWN_CHARS: Final = 200

_CODES: Final = frozenset(
    {"code", "type", "status", "reason", "error_code", "errortype", "__type", "error_type", "finish_reason"}
)
_BASE_RESP: Final = "base_resp"
_BASE_RESP_CODE: Final = ("base_resp", "status_code")
_PARAMETERS: Final = frozenset({"param", "loc", "field", "parameter"})
# What a validation error repeats of the request may be the customer's text.
_ECHOES: Final = frozenset({"input", "failed_generation", "flagged_input", "ctx", "url", "request"})
_HEADERS: Final = "headers"
_OF_LIMITS: Final = re.compile(r"(x-)?rate-?limit|(x-)?retry-after", re.IGNORECASE)
# Bodies of Google, OpenAI, Hugging Face and WSO2 call the time to come back so, in the letters alone.
_WAITS: Final = re.compile(
    r"retry(delay|(after|in|at)(seconds|secs|s)?|after(ms|milliseconds|millis))"
    r"|resets?(at|time|after|in(ms|milliseconds|seconds|secs|s)?)|nextaccesstime|estimatedtime"
)
_MILLISECONDS: Final = ("ms", "milliseconds", "millis")
_OTHER_THAN_LETTERS: Final = re.compile("[^a-z]")
# Cloudflare's page for programs is a number.
_PAGE: Final = re.compile(r"\s*(<|error code: \d{3,4}\s*$)")
_SECRET: Final = re.compile(r"\b(?:(?:sk|pk|xai|csk|pplx|tgp)-|gsk_|hf_|AIza|Bearer\s+)[\w*.-]{6,}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error response.

    Attributes:
        status: the HTTP status, or the one that an error under 200 names.
        codes: its machine-readable words, in lower case: codes, types, reasons.
        parameters: the parameters of the request that it names, in lower case.
        text: its sentences, in lower case, for reading only.
        wait: how long it asks to be left alone.
        is_page: whether it is a page for people, as gateways answer.
        location: where it redirects to.
    """

    status: int
    codes: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()
    text: str = ""
    wait: timedelta | None = None
    is_page: bool = False
    location: str = ""

    @property
    def named(self) -> str:
        """The status and the first code, for a log line."""
        codes = sorted(one for one in self.codes if not one.isdigit())
        return f"{self.status}, {codes[0]}" if codes else str(self.status)


def read_refusal(status: int, headers: Mapping[str, str], body: object) -> Refusal:
    """Return what an error response says. `body` is its bytes, or the JSON that was read from them. Raises nothing."""
    document = body
    if isinstance(body, bytes):
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            document = body[:_READ_BYTES].decode(errors="replace")
    said = _Said()
    is_page = isinstance(document, str) and bool(_PAGE.match(document))
    if not is_page:
        said.read(document)
    text = clean(" ".join(said.texts), chars=_TEXT_CHARS).lower()
    wait = retry_after(headers) or said.wait
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        wait = wait or named_reset(said.headers) or named_reset(headers) or spoken_wait(text)
    location = clean(headers.get("location") or "")
    return Refusal(status, frozenset(said.codes), frozenset(said.parameters), text, wait or None, is_page, location)


def clean(text: str, *, chars: int = _SHOWN_CHARS) -> str:
    """Return a foreign text as one bounded line without keys. A log, a page and Postgres can keep it."""
    # Controls, half surrogate pairs, and code points that Unicode has not assigned.
    printable = "".join(one if one.isprintable() else " " for one in text[: 2 * chars])
    return _SECRET.sub("[key]", printable).strip()[:chars]


class _Said:
    def __init__(self) -> None:
        self.codes: set[str] = set()
        self.parameters: set[str] = set()
        self.texts: list[str] = []
        self.headers: dict[str, str] = {}
        self.wait: timedelta | None = None
        self._parts = 0

    def read(self, document: object) -> None:
        for name, value in self._walk("", document, 0):
            if name == _BASE_RESP:
                # MiniMax's numbers mean something else than the same ones of others.
                self.codes.add(f"{_BASE_RESP}_{value}")
            elif name in _PARAMETERS:
                self.parameters.add(clean(str(value), chars=_WORD_CHARS).lower())
            elif _WAITS.fullmatch(letters := _OTHER_THAN_LETTERS.sub("", name)):
                stated = clean(str(value))
                self.wait = self.wait or wait_of(in_milliseconds(stated) if letters.endswith(_MILLISECONDS) else stated)
            elif name.startswith("x-ratelimit"):
                self.headers[name] = clean(str(value))
            elif name in _CODES:
                self.codes.add(clean(str(value), chars=_WORD_CHARS).lower())
            elif isinstance(value, str):
                self.texts.append(value[:_TEXT_CHARS])

    def _walk(self, name: str, value: object, depth: int) -> Iterator[tuple[str, str | int | float]]:
        """Yield every leaf with the name under which it stands; lists are looked through, `loc` is joined."""
        self._parts += 1
        if depth > _DEEPEST or self._parts > _MOST_PARTS or name in _ECHOES:
            return
        match value:
            case {"seconds": seconds} if name == "retrydelay":
                yield name, f"{seconds}s"
            case dict():
                for key, part in value.items():
                    # A gateway hands on those of the provider; others are of the request, with its key.
                    if name == _HEADERS and not _OF_LIMITS.match(str(key)):
                        continue
                    inner = str(key).lower()[:_WORD_CHARS]
                    yield from self._walk(_BASE_RESP if (name, inner) == _BASE_RESP_CODE else inner, part, depth + 1)
            case list() if name == "loc":
                yield name, ".".join(str(part) for part in value[:_DEEPEST] if part != "body")
            case list():
                for part in value:
                    yield from self._walk(name, part, depth + 1)
            case str() if depth < _DEEPEST and value.lstrip()[:1] in {"{", "["}:
                # A gateway's error holds the provider's own as a text: `metadata.raw`.
                try:
                    yield from self._walk(name, orjson.loads(value), depth + 1)
                except orjson.JSONDecodeError:
                    yield name, value
            case bool() | None:
                return
            case str() | int() | float():
                yield name, value
