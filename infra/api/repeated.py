"""This module joins lines of headers that are lists, and refuses other repeats.

RFC 9110, section 5.3, says that several lines of a list are one. Of what means one thing one line would be passed over,
and another program may have believed that one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

_Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

LISTS: Final = frozenset(
    {
        *(b"accept", b"accept-encoding", b"accept-language", b"access-control-request-headers", b"baggage"),
        *(b"cache-control", b"content-encoding", b"forwarded", b"if-match", b"if-none-match", b"prefer"),
        *(b"te", b"tracestate", b"via", b"x-forwarded-for", b"x-forwarded-prefix"),
    }
)
"""Headers whose lines are one list."""
SINGLE: Final = ("Content-Type", "Idempotency-Key", "Last-Event-ID")
"""Headers of which a request has one. `Authorization` is another, which `infra.api.caller` refuses as a login."""


@dataclass(frozen=True, slots=True)
class JoinedLists:
    """Joins the lines of each list, so that whatever reads the first line reads all."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and any_repeated(scope["headers"]):
            scope = {**scope, "headers": _joined(scope["headers"])}
        await self.app(scope, receive, send)


def any_repeated(headers: _Headers) -> bool:
    """Return whether a header has several lines."""
    return len({name for name, _ in headers}) < len(headers)


def _joined(headers: _Headers) -> list[tuple[bytes, bytes]]:
    lines: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        lines.setdefault(name, []).append(value)
    return [
        (name, value) for name, values in lines.items() for value in ([b", ".join(values)] if name in LISTS else values)
    ]


async def each_once(http: Request) -> None:
    """Pass if each query parameter is given once, and each header that means one thing. Raises RequestValidationError.

    A header that is repeated with the same value says the same.
    """
    counts = Counter(name for name, _ in http.query_params.multi_items())
    repeated = [("query", name) for name, count in counts.items() if count > 1]
    if any_repeated(http.headers.raw):
        repeated += [("header", name) for name in SINGLE if len(set(http.headers.getlist(name))) > 1]
    if repeated:
        why = ValueError("is given more than once; give it once")
        raise RequestValidationError(
            [{"type": "value_error", "loc": place, "ctx": {"error": why}} for place in repeated]
        )
