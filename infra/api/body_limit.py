"""Bounds every request body in length and in time, before anything is made of it. A compressed one has no bounds."""

import asyncio
import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.api.problems import ProblemResponse

# A client that hears 413 while it still sends may lose the answer with the connection, so up to here it is let finish.
_MOST_READ = 4 * 1024 * 1024
# A request without either has no body (RFC 9112, section 6.3).
_BODY = frozenset({b"content-length", b"transfer-encoding"})


def _in_wide_characters(messages: Sequence[Message]) -> bool:
    """Return true of UTF-16 and UTF-32, which Python's own reader of JSON takes, and no other part of us does.

    JSON begins with a character of ASCII, so that one of its first two bytes is zero there, or a mark of the order is.
    """
    first = b"".join(message.get("body", b"") for message in messages[:4])[:2]
    return b"\0" in first or first in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """It answers 413 to a body over `limit` bytes, 408 to a slow one.

    A compressed one gets 415: its own length says nothing. An unannounced length is limited too.

    The body is read before the app sees the request; under the limit that costs no more than the app's own reading,
    and what is over it is thrown away as it comes.
    """

    app: ASGIApp
    limit: int
    within_s: float = 30.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if not any(name in _BODY for name, _ in scope["headers"]):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if "transfer-encoding" in headers and "content-length" in headers:
            # What ends the body for us may not end it for the proxy before us, which would take the rest for a request.
            detail = "Content-Length and Transfer-Encoding: are both given; send one of them"
            refusal = ProblemResponse(400, "bad_request", detail, headers={"Connection": "close"})
            await refusal(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.within_s):
                messages = await self._read(receive)
        except TimeoutError:
            detail = f"body: has not come in {self.within_s:g} s; send the request again"
            refusal = ProblemResponse(408, "request_timeout", detail, headers={"Connection": "close"})
            await refusal(scope, receive, send)
            return
        if messages and messages[-1]["type"] == "http.disconnect":
            return  # the client is gone
        if not messages:
            detail = f"body: has more than {self.limit} bytes; send a shorter one"
            refusal = ProblemResponse(413, "body_too_large", detail, headers={"Connection": "close"})
            await refusal(scope, receive, send)
            return
        codings = {one.strip().lower() for one in headers.get("content-encoding", "").split(",")}
        if not codings <= {"", "identity"} and any(message.get("body") for message in messages):
            detail = "Content-Encoding: compressed bodies are not read; send the JSON as it is, without this header"
            refusal = ProblemResponse(415, "content_encoding", detail, headers={"Accept-Encoding": "identity"})
            await refusal(scope, receive, send)
            return
        if _in_wide_characters(messages):
            detail = "body: is in UTF-16 or UTF-32; send a JSON object in UTF-8"
            await ProblemResponse(400, "bad_request", detail)(scope, receive, send)
            return
        messages.reverse()

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self.app(scope, replay, send)

    async def _read(self, receive: Receive) -> list[Message]:
        """Return the messages that make up the body, or none when it is too long."""
        messages: list[Message] = []
        size = 0
        more = True
        while more and size <= _MOST_READ:
            message = await receive()
            size += len(message.get("body", b""))
            if size <= self.limit:
                messages.append(message)
            else:
                messages.clear()
            more = message.get("more_body", False)
        return messages
