"""No request body is longer than it can usefully be: a long one is refused before anything is made of it."""

from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.problems import ProblemResponse


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """Answers 413 to a request whose body is longer than `limit` bytes, whether or not it says so beforehand.

    The body is read before the app sees the request; under the limit that costs no more than the app's own reading.
    """

    app: ASGIApp
    limit: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        read = [] if _announced(scope) > self.limit else await self._read(receive)
        if not read:
            detail = f"body: has more than {self.limit} bytes; send a shorter one"
            # The rest of the body stays unread, so the connection cannot serve another request.
            refusal = ProblemResponse(413, "body_too_large", detail, headers={"Connection": "close"})
            await refusal(scope, receive, send)
            return
        read.reverse()

        async def replay() -> Message:
            return read.pop() if read else await receive()

        await self.app(scope, replay, send)

    async def _read(self, receive: Receive) -> list[Message]:
        """Return the messages that make up the body, or none when it is too long."""
        messages: list[Message] = []
        size = 0
        more = True
        while more:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > self.limit:
                return []
            more = message.get("more_body", False)
        return messages


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0
