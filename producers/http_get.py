"""A GET over HTTP/1.1 gives its body as it comes, and server-sent events of it.

It needs `asyncio` alone, so that the client brings no HTTP library along.
Source of the events: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}
_LONGEST_LINE: Final = 1 << 20  # an event with its data is one line
_MOST_HEADERS: Final = 200


class CutOff(ConnectionError):
    """The answer is not HTTP, or ended before its end."""


@dataclass(frozen=True, slots=True)
class ApiAddress:
    """The address of the API, in its parts."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> "ApiAddress":
        """Read an address such as https://teamfit.example.com/activities.

        Raises:
            ValueError: it is none; the message says what is wrong and the fix.
        """
        parts = urlsplit(url.strip())
        try:
            port = parts.port
        except ValueError:
            raise ValueError("its port must be a number up to 65535; write https://HOST:PORT") from None
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError("must be the API's address, such as https://teamfit.example.com")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(
                "must end with its path; leave out user, password, ? and #; the token has a place of its own"
            )
        path = parts.path.rstrip("/")
        return cls(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], path)

    @property
    def authority(self) -> str:
        """Return host and port, as the header `Host` has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request.

    Attributes:
        headers: by their names in small letters.
        body: pieces as they come; read them once.
    """

    status: int
    headers: Mapping[str, str]
    body: AsyncIterator[bytes]

    async def read(self) -> bytes:
        """Return the whole body."""
        return b"".join([piece async for piece in self.body])


@asynccontextmanager
async def get(address: ApiAddress, path: str, headers: Mapping[str, str], *, silence_s: float) -> AsyncIterator[Answer]:
    """Ask for a path below the API's address. The connection ends with the block.

    Args:
        path: with its query, as it is sent.
        silence_s: how long the server may say nothing.

    Raises:
        OSError: it cannot be reached, says nothing for too long, or is cut off while the body is read.
    """
    tls = ssl.create_default_context() if address.scheme == "https" else None
    async with _patience(silence_s):
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=tls, limit=_LONGEST_LINE)
    try:
        lines = {"Host": address.authority, "Connection": "close", "Accept-Encoding": "identity", **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"GET {address.path}{path} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))
        async with _patience(silence_s):
            status, found = await _head(reader)
        yield Answer(status, found, _body(reader, status, found, silence_s))
    finally:
        writer.transport.abort()


@asynccontextmanager
async def _patience(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        raise CutOff(f"the answer was cut off, or is not HTTP: {error}") from error


async def _head(reader: asyncio.StreamReader) -> tuple[int, Mapping[str, str]]:
    version, _, rest = (await reader.readuntil(b"\r\n")).decode("latin-1").partition(" ")
    if not version.startswith("HTTP/1."):
        raise CutOff("the answer is not HTTP/1.1: is api_url the API's address, and its scheme right?")
    headers: dict[str, str] = {}
    for _ in range(_MOST_HEADERS):
        name, _, value = (await reader.readuntil(b"\r\n")).decode("latin-1").partition(":")
        if not name.strip():
            return int(rest[:3]), headers
        headers[name.strip().lower()] = value.strip()
    raise CutOff(f"the answer has more than {_MOST_HEADERS} headers")


async def _body(
    reader: asyncio.StreamReader, status: int, headers: Mapping[str, str], silence_s: float
) -> AsyncIterator[bytes]:
    if status in {204, 304}:
        return
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while True:
            async with _patience(silence_s):
                size = int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)
                piece = await reader.readexactly(size + 2)
            if not size:
                return
            yield piece[:-2]
    elif "content-length" in headers:
        async with _patience(silence_s):
            whole = await reader.readexactly(int(headers["content-length"]))
        yield whole
    else:
        while True:
            async with _patience(silence_s):
                piece = await reader.read(1 << 16)
            if not piece:
                return
            yield piece


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
