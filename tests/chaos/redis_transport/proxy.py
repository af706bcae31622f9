"""A network between workers and their server that resets connections, swallows packets, or speaks TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ssl import SSLContext


class Proxy:
    """Passes bytes on; resets its connections, or swallows everything, when told to."""

    def __init__(self, port: int, tls: SSLContext | None = None) -> None:
        self._target = port
        self._tls = tls
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()

    async def start(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        self._server.close()
        self.reset()
        self._open.set()

    def reset(self) -> None:
        """Cut every connection without a word."""
        for writer in list(self._writers):
            writer.transport.abort()

    def swallow(self) -> None:
        """From now on nothing arrives, in either direction, and no connection breaks."""
        self._open.clear()

    def pass_on(self) -> None:
        """What was swallowed arrives after all, and everything after it."""
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers |= {writer, up_writer}
            try:
                await asyncio.gather(self._pump(reader, up_writer), self._pump(up_reader, writer))
            finally:
                self._writers -= {writer, up_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def proxied(port: int, tls: SSLContext | None = None) -> AsyncIterator[Proxy]:
    """A proxy before this port, on `proxy.port`; with `tls` it takes nothing else."""
    proxy = Proxy(port, tls)
    proxy.port = await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
