"""Clients that keep a connection waiting, on raw sockets: each is cut off, and others are served meanwhile."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import aiohttp
import orjson
import pytest
from starlette.types import Receive, Scope, Send

from infra.api.body_limit import BodyLimit
from infra.api.server import BoundedConnection
from tests.api_server import api_settings, serving_app
from tests.waiting import wait_for


class Impatient(BoundedConnection):
    """The connection of the API, with times that a test can wait for."""

    headers_within_s = 0.3
    read_within_s = 0.3


@dataclass
class App:
    """Answers as much as it is asked for."""

    sent: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        chunks = int(scope["path"].removeprefix("/"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(chunks):
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            self.sent += 1
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
async def app() -> App:
    """What is served."""
    return App()


@pytest.fixture
async def served(app: App) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of it, behind the API's own limits."""
    settings = api_settings(database_url="unused").model_copy(update={"keep_alive_s": 1})
    limited = BodyLimit(app, limit=1_000, within_s=0.3)
    async with serving_app(limited, settings, connection=Impatient) as session:
        yield session


@asynccontextmanager
async def raw(session: aiohttp.ClientSession) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Give a connection on which the test writes what it likes."""
    base = session._base_url
    assert base is not None
    reader, writer = await asyncio.open_connection(base.host, base.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def received(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the connection ends, in whichever way."""
    answer = b""
    with suppress(ConnectionError):
        while chunk := await reader.read(65_536):
            answer += chunk
    return answer


async def trickle(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send a byte now and then, until the other side has had enough."""
    with suppress(ConnectionError):
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("begins", "trickles", "status"),
    [
        (b"", b"", b""),
        (b"GET /1 HTTP/1.1\r\nHost: x\r\n", b"", b""),
        (b"", b"GET /1 HTTP/1.1\r\nX-Slow: " + b"a" * 10_000, b""),
        (b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /1 HTTP/1.1\r\nX-Slow: " + b"a" * 10_000, b"200"),
        (b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n", b"", b"408"),
        (b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n", b"a" * 900, b"408"),
        (b"POST /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 200, b"408"),
        (b"POST /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnot a chunk\r\n", b"", b"400"),
        (b"rubbish\r\n\r\n", b"", b"400"),
        (b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n" + b"rubbish\r\n\r\n", b"", b"200"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: \0\r\n\r\n", b"", b"400"),
        (b"GET /1 HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1_000_000, b"", b"400"),
    ],
)
async def test_whoever_keeps_a_connection_waiting_is_cut_off(
    served: aiohttp.ClientSession, begins: bytes, trickles: bytes, status: bytes
) -> None:
    """Silence, slow headers, a slow body, no HTTP: an answer where one can be given, and the end of the connection."""
    async with raw(served) as (reader, writer):
        writer.write(begins)
        sending = asyncio.create_task(trickle(writer, trickles))
        async with asyncio.timeout(20):
            answer = await received(reader)
        sending.cancel()
    assert answer.split(b" ")[1:2] == ([status] if status else [])
    if status in {b"400", b"408"}:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"application/problem+json" in head
        assert orjson.loads(body)["status"] == int(status)


async def test_a_client_that_reads_no_more_is_cut_off(served: aiohttp.ClientSession, app: App) -> None:
    """Its answer is given up when the buffers have been full for too long; before, it held its memory for ever."""
    async with raw(served) as (_, writer):
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        writer.transport.pause_reading()  # type: ignore[attr-defined] # it can be read from
        writer.write(b"GET /3000 HTTP/1.1\r\nHost: x\r\n\r\n")
        await wait_for(lambda: app.sent > 0, what="the answer to begin")
        # Of 200 MB only what fits into the buffers is made; uvicorn then lets the app's sends go nowhere.
        await wait_for(lambda: app.sent == 3_000, what="the answer to be given up", deadline_s=30)
    async with served.get("/1") as answer:
        assert len(await answer.read()) == 65_536


async def test_a_client_that_reads_slowly_but_reads_is_served(served: aiohttp.ClientSession) -> None:
    """Time is given anew whenever it has caught up."""
    async with served.get("/40") as answer:
        size = 0
        async for chunk in answer.content.iter_chunked(65_536):
            size += len(chunk)
            await asyncio.sleep(0.02)
    assert size == 40 * 65_536
