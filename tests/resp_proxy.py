"""A server's stand-in between a client and a real server: it answers chosen commands with chosen errors, or cuts."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from time import monotonic

CUT = b""
"""As an answer: the connection is closed before the command reaches the server."""

LOST = b"lost"
"""As an answer: the command is executed, and the connection closed before its reply arrives."""

HALF = b"half"
"""As an answer: the command is executed, half of its reply arrives, and nothing more."""

SLOW = b"slow"
"""As an answer: the command's reply arrives byte by byte."""

PUSHED = b"pushed"
"""As an answer: a message that nobody asked for arrives before the command's reply."""

RAW = b"raw "
"""What follows it arrives as it is, in place of a reply; the command does not reach the server."""

_A_PUSH = b">2\r\n$10\r\ninvalidate\r\n*-1\r\n"

_TWO_WORDS = {b"XGROUP", b"XINFO", b"CLIENT", b"SCRIPT", b"CONFIG"}


async def _read_one(reader: asyncio.StreamReader) -> bytes:
    """Return one command or reply as it stands on the wire."""
    line = await reader.readuntil(b"\r\n")
    kind, rest = line[:1], line[1:-2]
    if kind in b"$=" and int(rest) >= 0:
        return line + await reader.readexactly(int(rest) + 2)
    if kind in b"*~>%" and int(rest) >= 0:
        parts = int(rest) * (2 if kind == b"%" else 1)
        return line + b"".join([await _read_one(reader) for _ in range(parts)])
    return line


def _words(raw: bytes) -> list[bytes]:
    words, at = [], raw.index(b"\r\n") + 2
    while at < len(raw):
        end = raw.index(b"\r\n", at)
        length = int(raw[at + 1 : end])
        words.append(raw[end + 2 : end + 2 + length])
        at = end + 4 + length
    return words


class RespProxy:
    """Passes commands on, except those that it has an answer for.

    A command's name is its first word, or its first two, or `EVALSHA` and the script's name.
    """

    def __init__(self, port: int, scripts: Mapping[str, str]) -> None:
        """Listen to nobody yet.

        Args:
            port: the real server's.
            scripts: from digest to name.
        """
        self.target = port
        """Where connections are passed on to from now on."""
        self._scripts = scripts
        self.port = 0
        self.answers: dict[str, bytes] = {}
        self.seen: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.times: list[float] = []
        self._serving: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[RespProxy]:
        """Listen on `port` until the block ends, then cut every connection."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._serving, return_exceptions=True)

    def cut(self) -> None:
        """Close every connection."""
        for task in list(self._serving):
            task.cancel()

    def _name(self, words: list[bytes]) -> str:
        first = words[0].upper()
        if first in {b"EVALSHA", b"EVAL"}:
            digest = words[1].decode() if first == b"EVALSHA" else hashlib.sha1(words[1]).hexdigest()  # noqa: S324
            return f"{first.decode()} {self._scripts.get(digest, digest)}"
        return b" ".join(words[:2]).decode().upper() if first in _TWO_WORDS else first.decode()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except (OSError, asyncio.CancelledError):
            self._serving.discard(task)
            writer.transport.abort()
            return
        commands: asyncio.Queue[bytes] = asyncio.Queue()

        async def receive() -> None:
            while True:
                commands.put_nowait(await _read_one(reader))

        async def reply() -> None:
            while await self._answer(await commands.get(), up_reader, up_writer, writer):
                pass

        # A client that hangs up in the middle of a read that waits must not leave the read behind on the server.
        both = [asyncio.create_task(receive()), asyncio.create_task(reply())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass
        finally:
            self._serving.discard(task)
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            for end in (writer, up_writer):
                end.transport.abort()
                with suppress(OSError):
                    await end.wait_closed()

    async def _answer(
        self, raw: bytes, up_reader: asyncio.StreamReader, up_writer: asyncio.StreamWriter, writer: asyncio.StreamWriter
    ) -> bool:
        name = self._name(_words(raw))
        self.seen[name] += 1
        self.times.append(monotonic())
        answer = self.answers.get(name)
        if answer is not None:
            self.answered[name] += 1
        if answer == CUT:
            return False
        if answer is not None and answer not in {LOST, HALF, SLOW, PUSHED}:
            writer.write(answer.removeprefix(RAW) if answer.startswith(RAW) else b"-" + answer + b"\r\n")
            return True
        up_writer.write(raw)
        reply = await _read_one(up_reader)
        if answer == LOST:
            return False
        with suppress(OSError):
            await self._pass_on(reply, answer, writer)
        return True

    async def _pass_on(self, reply: bytes, answer: bytes | None, writer: asyncio.StreamWriter) -> None:
        if answer == HALF:
            writer.write(reply[: len(reply) // 2])
        elif answer == SLOW:
            for at in range(len(reply)):
                writer.write(reply[at : at + 1])
                await asyncio.sleep(0.001)
        else:
            writer.write(_A_PUSH * (answer == PUSHED) + reply)
