"""Every route with GET answers HEAD, without the body (RFC 9110, section 9.3.2)."""

import asyncio
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS_ALONE: Final = "teamfit.headers_alone"
"""In the scope of a GET that was a HEAD: it must use nothing up (RFC 9110, section 9.2.1)."""


@dataclass(frozen=True, slots=True)
class Head:
    """Answers HEAD as GET is answered, up to the end of the headers."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        answered = asyncio.Event()

        async def send_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                answered.set()

        async def receive_until_answered() -> Message:
            # A stream of events ends when it hears that the client is gone.
            if not answered.is_set():
                getting, told = asyncio.create_task(_received(receive)), asyncio.create_task(answered.wait())
                await asyncio.wait({getting, told}, return_when=asyncio.FIRST_COMPLETED)
                told.cancel()
                if getting.done():
                    return getting.result()
                getting.cancel()
            return {"type": "http.disconnect"}

        await self.app({**scope, "method": "GET", HEADERS_ALONE: True}, receive_until_answered, send_headers)


async def _received(receive: Receive) -> Message:
    return await receive()
