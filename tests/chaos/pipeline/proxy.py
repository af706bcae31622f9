"""A TCP proxy before a server, which can be slow, cut connections, or swallow what it is given."""

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

_CHUNK = 65536


@dataclass
class Proxy:
    """Passes bytes between clients and one port of this machine; a context manager.

    Attributes:
        target: the server's port.
        port: where clients connect; known once it runs.
        delay_s: how long each piece of the server's answers is held back.
    """

    target: int
    port: int = 0
    delay_s: float = 0.0
    _open: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _clients: set[asyncio.StreamWriter] = field(default_factory=set, init=False)

    async def __aenter__(self) -> Self:
        """Begin to listen."""
        self._open.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and cut every connection."""
        self._server.close()
        self.pass_on()
        self.reset()

    def reset(self) -> None:
        """Cut every connection, as a router that forgets them does: both sides find out by a reset."""
        for client in tuple(self._clients):
            peer: socket.socket | None = client.get_extra_info("socket")
            if peer is not None:
                with suppress(OSError):
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.transport.abort()

    def swallow(self) -> None:
        """Pass nothing on from now, and answer nothing: a black hole. New connections are taken, and get nowhere."""
        self._open.clear()

    def pass_on(self) -> None:
        """End the black hole. Connections of its time are cut, as no network keeps bytes for later."""
        if not self._open.is_set():
            self._open.set()
            self.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        upstream: asyncio.StreamWriter | None = None
        pumps: list[asyncio.Task[None]] = []
        try:
            await self._open.wait()
            answers, upstream = await asyncio.open_connection("127.0.0.1", self.target)
            pumps = [
                asyncio.create_task(self._pump(reader, upstream, delayed=False)),
                asyncio.create_task(self._pump(answers, writer, delayed=True)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            pass  # the server is away, or the proxy ends: either way the client finds its connection closed
        finally:
            for pump in pumps:
                pump.cancel()
            self._clients.discard(writer)
            for side in (writer, upstream):
                if side is not None:
                    side.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, delayed: bool) -> None:
        with suppress(OSError):
            while chunk := await source.read(_CHUNK):
                await self._open.wait()
                if delayed and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                sink.write(chunk)
                await sink.drain()
