"""The outbox: entries that wait to be written, and the task that writes them.

One command writes what waits for one stream, and meanwhile the next batch collects; so the order of a stream's entries
is the order in which they were put here. The outbox is bounded: `put` waits while it is full. Whatever becomes of an
entry, whoever put it hears of it: nothing is repeated here, since only the caller knows whether it may be.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from redis.asyncio import Redis, RedisCluster

from .errors import BrokerUnavailable, TransportError
from .health import Health
from .loop import Loop
from .server import Client, run_script_by, translate, translate_reply
from .settings import RedisSettings

__all__ = ["Answer", "Outbox", "Outgoing", "not_an_id"]

# The most entries and bytes in one command: enough to make the round trip cheap, little enough that others get a turn.
_BATCH = 500
_BATCH_BYTES = 1024 * 1024

# The most fields and values in one script call. Lua's `unpack` fails somewhere below 8,000 for one entry, in the middle
# of the batch.
_BATCH_PARTS = 7000

Answer = bytes | TransportError
"""What became of an entry: its ID in the stream, or why it has none."""


class Outgoing(NamedTuple):
    """Entries of one stream whose sender wants to hear of all of them at once.

    `parts` holds for each entry how many fields and values it has, and then those.
    """

    stream: bytes
    parts: list[bytes]
    entries: int
    settle: Callable[[Sequence[Answer]], None]

    @property
    def size(self) -> int:
        """Return the number of bytes to write."""
        return sum(map(len, self.parts))


class Outbox:
    """The entries of one producer that are not written yet."""

    def __init__(self, settings: RedisSettings, health: Health) -> None:
        self._settings = settings
        self._loop = Loop("sending", health)
        self._client: Client | None = None
        self._waiting: deque[tuple[Outgoing, int]] = deque()
        self._entries = 0
        self._bytes = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._has_ended = False
        self._room.set()
        self._idle.set()

    async def put(self, outgoing: Outgoing) -> None:
        """Queue entries to be written. Waits while too much is waiting already. Those put here after the end fail."""
        while not self._room.is_set():
            await self._room.wait()
        if self._has_ended:
            self._refuse(outgoing)
            return
        size = outgoing.size
        self._waiting.append((outgoing, size))
        self._idle.clear()
        self._wake.set()
        self._count(outgoing.entries, size)

    async def flush(self) -> None:
        """Wait until everything that was put here has been written, or has failed."""
        await self._idle.wait()

    async def run(self, client: Client) -> None:
        """Write what is put here, until cancelled. What is not written then, or put here later, fails."""
        self._client, self._has_ended = client, False
        try:
            while True:
                await self._wake.wait()
                # Let everything that is ready to send join this batch, and the event loop look at the sockets: a
                # connection that the server has closed meanwhile is found before anything is written to it.
                await asyncio.sleep(0)
                while self._waiting:
                    # No wait after a failure: each sender hears of it, and decides about the next try.
                    with self._loop:
                        await self._write(self._take_batch())
                self._wake.clear()
                self._idle.set()
        finally:
            self._end()

    def _end(self) -> None:
        self._has_ended = True
        while self._waiting:
            outgoing, size = self._waiting.popleft()
            self._count(-outgoing.entries, -size)
            self._refuse(outgoing)
        self._room.set()
        self._idle.set()

    def _refuse(self, outgoing: Outgoing) -> None:
        never = BrokerUnavailable("the producer has stopped", maybe_written=False)
        self._settle([outgoing], [never] * outgoing.entries)

    def close(self) -> None:
        """From now on nothing can be written."""
        self._client = None

    def _count(self, entries: int, size: int) -> None:
        self._entries += entries
        self._bytes += size
        if self._entries >= self._settings.send_buffer or self._bytes >= self._settings.send_buffer_bytes:
            self._room.clear()
        else:
            self._room.set()

    def _take_batch(self) -> list[tuple[Outgoing, int]]:
        taken = size = entries = 0
        for outgoing, bytes_ in islice(self._waiting, _BATCH):
            taken += 1
            size += bytes_
            entries += outgoing.entries
            if size >= _BATCH_BYTES or entries >= _BATCH:
                break
        return [self._waiting.popleft() for _ in range(taken)]

    async def _write(self, batch: list[tuple[Outgoing, int]]) -> None:
        by_stream: dict[bytes, list[Outgoing]] = {}
        for outgoing, _ in batch:
            by_stream.setdefault(outgoing.stream, []).append(outgoing)
        try:
            if len(by_stream) == 1:  # no tasks, which would be half of the time that one entry takes to be sent
                away = [await self._append(*by_stream.popitem())]
            else:
                away = await asyncio.gather(*(self._append(stream, group) for stream, group in by_stream.items()))
        finally:
            for outgoing, size in batch:
                self._count(-outgoing.entries, -size)
        for error in filter(None, away):
            raise error  # for `health()`: every sender has been told

    async def _append(self, stream: bytes, group: list[Outgoing]) -> BrokerUnavailable | None:
        """Write entries of one stream, and tell every sender what became of its own; returns whether it is away."""
        entries = sum(outgoing.entries for outgoing in group)
        parts = [part for outgoing in group for part in outgoing.parts]
        try:
            if entries == 1:
                reply = [await self._execute("XADD", stream, "*", *parts[1:])]
            elif len(parts) > _BATCH_PARTS:
                reply = await self._execute_each(stream, parts)
            else:
                reply = await run_script_by(self._execute, "append", stream, *parts)
        except Exception as error:  # noqa: BLE001 - whatever it is, every sender must hear of it
            # Not kept in a variable: its traceback leads here, and the cycle would keep the entries in memory.
            return self._settle(group, [translate(error, sent=True)] * entries)
        except BaseException:
            self._settle(group, [BrokerUnavailable("the producer stopped", maybe_written=True)] * entries)
            raise
        return self._settle(group, _answers(reply, entries))

    async def _execute_each(self, stream: bytes, parts: list[bytes]) -> list[Any]:
        """Write entries that are too many parts for a script one by one, in order."""
        answers: list[Any] = []
        at = 0
        while at < len(parts):
            end = at + 1 + int(parts[at])
            try:
                answers.append(await self._execute("XADD", stream, "*", *parts[at + 1 : end]))
            except Exception as error:  # noqa: BLE001 - the entries after it are written all the same
                answers.append(translate(error, sent=True))
            at = end
        return answers

    @staticmethod
    def _settle(group: list[Outgoing], answers: Sequence[Answer]) -> BrokerUnavailable | None:
        begin = 0
        for outgoing in group:
            end = begin + outgoing.entries
            outgoing.settle(answers[begin:end])
            begin = end
        return next((answer for answer in answers if isinstance(answer, BrokerUnavailable)), None)

    async def _execute(self, *command: Any) -> Any:
        """Send one command on a connection that works.

        Raises:
            BrokerUnavailable: nothing was written, since no connection can be made.
            RedisError: the server refused the command, or what became of it is unknown.
        """
        client = self._client
        if client is None:
            raise BrokerUnavailable("the producer is not started", maybe_written=False)
        if not isinstance(client, Redis):
            return await self._execute_on_cluster(client, command)
        pool = client.connection_pool
        try:
            # The pool looks whether its connection is still open, and opens another one if not.
            connection = await pool.get_connection()
        except Exception as error:
            raise translate(error, sent=False) from error
        try:
            await connection.send_command(*command)
            return await connection.read_response()
        finally:
            await pool.release(connection)

    async def _execute_on_cluster(self, client: RedisCluster, command: Sequence[Any]) -> Any:
        try:
            await client.initialize()
        except Exception as error:
            raise translate(error, sent=False) from error
        return await client.execute_command(*command)


def _answers(reply: Any, entries: int) -> Sequence[Answer]:
    """Read the reply for a batch. What stands between here and the server may answer anything at all."""
    if not isinstance(reply, list) or len(reply) != entries:
        return [BrokerUnavailable(f"the broker answered {reply!r} to {entries} entries", maybe_written=True)] * entries
    # The script marks its answer for an entry that the server refused.
    return [answer if isinstance(answer, bytes) and answer[:1] != b"!" else _no_id(answer) for answer in reply]


def _no_id(answer: Any) -> TransportError:
    if isinstance(answer, TransportError):
        return answer
    if isinstance(answer, bytes):
        return translate_reply(answer[1:].decode(errors="replace").removeprefix("-"))
    return not_an_id(answer)


def not_an_id(answer: Any) -> BrokerUnavailable:
    """Return the error for an answer without an ID and without a reason."""
    return BrokerUnavailable(f"the broker answered {answer!r} instead of an entry's ID", maybe_written=True)
