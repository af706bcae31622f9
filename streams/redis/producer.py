"""The producer: writes entries in pipelines, and says honestly what became of each.

`send` puts an entry into a buffer and returns a future. One task writes what the buffer holds, with one command for
each stream, and meanwhile the next batch collects. The buffer is bounded: a send beyond it waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from faust.transport.producer import Producer as FaustProducer
from faust.types import TP, HeadersArg, RecordMetadata
from faust.types.transports import ProducerT
from redis.asyncio import Redis

from .entry import encode_entry
from .errors import BrokerUnavailable, TransportError
from .server import Client, close, run_script, translate, translate_reply

if TYPE_CHECKING:
    from .transport import Transport

__all__ = ["EntryMetadata", "Producer"]

# The most entries and bytes in one batch: enough to make the round trip cheap, little enough that others get a turn.
_BATCH = 500
_BATCH_BYTES = 1024 * 1024

_LOOP = "sending"


class EntryMetadata(RecordMetadata):
    """Where an entry was written. `offset` holds its ID as one number, `entry_id` as Redis writes it."""

    __slots__ = ()

    @property
    def entry_id(self) -> str:
        """The entry's ID in the stream."""
        return f"{self.offset >> 20}-{self.offset & 0xFFFFF}"


class _Pending(NamedTuple):
    topic: str
    partition: int
    stream: bytes
    parts: list[bytes]  # how many there are, then fields and values
    size: int
    future: asyncio.Future[RecordMetadata]


class Producer(FaustProducer):
    """Writes to streams."""

    def __init__(self, transport: Transport, **kwargs: Any) -> None:
        super().__init__(transport, **kwargs)
        self._transport = transport
        self.settings = transport.settings
        self._client: Client | None = None
        self._buffer: deque[_Pending] = deque()
        self._bytes = 0
        self._writing = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._room.set()
        self._idle.set()

    async def on_start(self) -> None:
        """Start writing."""
        await super().on_start()
        self._client = self._transport.server.open()
        self.add_future(self._write_loop())
        # Faust asks the app for its started producer before every message, through a guard against stampedes that
        # goes round the event loop three times. From here on the answer is known.
        self.app.maybe_start_producer = self._started_producer

    async def _started_producer(self) -> ProducerT:
        return self

    async def on_stop(self) -> None:
        """Write what is left."""
        self.app.__dict__.pop("maybe_start_producer", None)
        await super().on_stop()
        await self.flush()

    async def on_shutdown(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await close(self._client)
            self._client = None

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: HeadersArg | None,
        *,
        transactional_id: str | None = None,
    ) -> Awaitable[RecordMetadata]:
        """Queue an entry; the future resolves when the server has recorded it.

        Waits while the buffer is full. The future fails with BrokerUnavailable or EntryRefused; nothing is repeated.
        """
        while not self._room.is_set():
            await self._room.wait()
        if partition is None:
            partition = self._transport.partition_for(topic, key)
        parts = [b""]
        for pair in encode_entry(key, value, headers, timestamp).items():
            parts += pair
        parts[0] = b"%d" % (len(parts) - 1)
        size = sum(map(len, parts))
        future: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        # A caller that does not wait for the future still learns of the failure from Faust's sensors; without this,
        # the garbage collector would complain as well.
        future.add_done_callback(_retrieve)
        self._buffer.append(_Pending(topic, partition, self._transport.stream(topic, partition), parts, size, future))
        self._bytes += size
        self._idle.clear()
        self._wake.set()
        self._set_room()
        return future

    async def send_and_wait(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: HeadersArg | None,
        *,
        transactional_id: str | None = None,
    ) -> RecordMetadata:
        """Write an entry; returns when the server has recorded it."""
        return await (await self.send(topic, key, value, partition, timestamp, headers))

    async def flush(self) -> None:
        """Wait until everything that was sent has been written, or has failed."""
        await self.buffer.flush()
        await self._idle.wait()

    def _set_room(self) -> None:
        waiting = len(self._buffer) + self._writing
        if waiting >= self.settings.send_buffer or self._bytes >= self.settings.send_buffer_bytes:
            self._room.clear()
        else:
            self._room.set()

    async def _write_loop(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(0)  # let everything that is ready to send join this batch
            while self._buffer:
                await self._write(self._take_batch())
            self._wake.clear()
            self._idle.set()

    def _take_batch(self) -> list[_Pending]:
        size = count = 0
        for pending in islice(self._buffer, _BATCH):
            size += pending.size
            count += 1
            if size >= _BATCH_BYTES:
                break
        return [self._buffer.popleft() for _ in range(count)]

    async def _write(self, batch: list[_Pending]) -> None:
        self._writing = len(batch)
        by_stream: dict[bytes, list[_Pending]] = {}
        for pending in batch:
            by_stream.setdefault(pending.stream, []).append(pending)
        try:
            await asyncio.gather(*(self._append(stream, entries) for stream, entries in by_stream.items()))
        finally:
            self._writing = 0
            self._set_room()

    async def _append(self, stream: bytes, entries: list[_Pending]) -> None:
        """Write entries of one stream with one command, and tell every caller what became of its own."""
        parts = [part for pending in entries for part in pending.parts]
        try:
            client = await self._connected()
            answers = await run_script(client, "append", stream, *parts)
        except Exception as error:  # noqa: BLE001 - whatever it is, every caller must hear of it
            answers = [translate(error, sent=True)] * len(entries)
        except BaseException:
            self._resolve(entries, [BrokerUnavailable("the producer stopped", maybe_written=True)] * len(entries))
            raise
        self._resolve(entries, answers)

    async def _connected(self) -> Client:
        """The client, with a connection that works: before anything is sent, a failure means that nothing was written.

        Raises:
            BrokerUnavailable: no connection can be made.
        """
        client = self._client
        if client is None:
            raise BrokerUnavailable("the producer is not started", maybe_written=False)
        try:
            if isinstance(client, Redis):
                # The pool looks whether its connection is still open, and opens another one if not.
                connection = await client.connection_pool.get_connection()
                await client.connection_pool.release(connection)
            else:
                await client.initialize()
        except Exception as error:
            raise translate(error, sent=False) from error
        return client

    def _resolve(self, entries: list[_Pending], answers: list[Any]) -> None:
        health = self._transport.state
        for pending, answer in zip(entries, answers, strict=True):
            self._bytes -= pending.size
            if pending.future.done():
                continue
            failure = answer if isinstance(answer, TransportError) else _refusal(answer)
            if failure is None:
                health.alive(_LOOP)
                pending.future.set_result(_metadata(pending, answer))
                continue
            if isinstance(failure, BrokerUnavailable):
                health.failing(_LOOP, failure)
            pending.future.set_exception(failure)

    async def create_topic(self, topic: str, partitions: int, replication: int, **kwargs: Any) -> None:
        """Streams need not be created; remembers how many partitions there are."""
        self._transport.declare(topic, partitions)

    def key_partition(self, topic: str, key: bytes) -> TP:
        """Which partition a key belongs to."""
        return TP(topic, self._transport.partition_for(topic, key))

    def supports_headers(self) -> bool:
        """Headers are supported."""
        return True


def _retrieve(future: asyncio.Future[RecordMetadata]) -> None:
    if not future.cancelled():
        future.exception()


def _refusal(answer: bytes) -> TransportError | None:
    """The error in a script's answer for one entry, if there is one."""
    if not answer.startswith(b"!"):
        return None
    message = answer[1:].decode(errors="replace").removeprefix("-")
    return translate_reply(message)


def _metadata(pending: _Pending, reply: bytes) -> EntryMetadata:
    milliseconds, _, sequence = reply.partition(b"-")
    return EntryMetadata(
        pending.topic,
        pending.partition,
        TP(pending.topic, pending.partition),
        (int(milliseconds) << 20) + int(sequence),
        int(milliseconds) / 1000,
        0,
    )
