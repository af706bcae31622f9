"""Server-sent events are read from the pieces of an answer.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event."""

    id: str
    event: str
    data: str


@dataclass(frozen=True, slots=True)
class ServerEvents:
    """The events of an answer. One that is cut off in its middle is none."""

    pieces: AsyncIterator[bytes]

    async def __aiter__(self) -> AsyncIterator[ServerEvent]:
        """Yield the events as they come."""
        fields: dict[str, str] = {}
        async for line in self._lines():
            if line:
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                fields[name] = f"{fields['data']}\n{value}" if name == "data" and "data" in fields else value
                continue
            if "data" in fields and fields.get("id", "").isdigit():
                yield ServerEvent(fields["id"], fields.get("event", "message"), fields["data"])
            fields = {}

    async def _lines(self) -> AsyncIterator[str]:
        rest = b""
        async for piece in self.pieces:
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line.removesuffix(b"\r").decode()
