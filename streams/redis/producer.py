"""The producer: writes entries in pipelines, and says honestly what became of each.

`send` puts an entry into a buffer and returns a future. One task writes what the buffer holds in one pipeline,
and meanwhile the next batch collects. The buffer is bounded: a send beyond it waits.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from faust.transport.producer import Producer as FaustProducer
from faust.types import TP, HeadersArg, RecordMetadata
from faust.types.transports import ProducerT
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from .entry import encode_entry
from .errors import BrokerUnavailable
from .server import Client, close, translate

if TYPE_CHECKING:
    from .transport import Transport

__all__ = ["EntryMetadata", "Producer"]

# The most entries and bytes in one pipeline: enough to make the round trip cheap, little enough that others get a turn.
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
    command: list[bytes]
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
        stream = self._transport.stream(topic, partition)
        command = [b"XADD", stream, b"*"]
        for pair in encode_entry(key, value, headers, timestamp).items():
            command += pair
        size = sum(map(len, command))
        future: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        # A caller that does not wait for the future still learns of the failure from Faust's sensors; without this,
        # the garbage collector would complain as well.
        future.add_done_callback(_retrieve)
        self._buffer.append(_Pending(topic, partition, command, size, future))
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
        try:
            replies = await self._execute([pending.command for pending in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, every caller must hear of it
            replies = [error] * len(batch)
        except BaseException:
            lost = BrokerUnavailable("the producer stopped", maybe_written=True)
            self._resolve(batch, [lost] * len(batch))
            raise
        finally:
            self._writing = 0
        self._resolve(batch, replies)

    def _resolve(self, batch: list[_Pending], replies: list[Any]) -> None:
        health = self._transport.state
        for pending, reply in zip(batch, replies, strict=True):
            self._bytes -= pending.size
            if pending.future.done():
                continue
            if isinstance(reply, BaseException):
                failure = translate(reply, sent=True)
                if isinstance(failure, BrokerUnavailable):
                    health.failing(_LOOP, failure)
                pending.future.set_exception(failure)
            else:
                health.alive(_LOOP)
                pending.future.set_result(_metadata(pending, reply))
        self._set_room()

    async def _execute(self, commands: list[list[bytes]]) -> list[Any]:
        """Run commands in one pipeline; a reply may be an exception.

        Raises:
            BrokerUnavailable: no connection could be made, or it broke.
        """
        client = self._client
        if client is None:
            raise BrokerUnavailable("the producer is not started", maybe_written=False)
        if not isinstance(client, Redis):
            pipeline = client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command("XADD", *command[1:])  # the Cluster client routes by a name in text
            return list(await pipeline.execute(raise_on_error=False))
        try:
            connection = await client.connection_pool.get_connection()
        except Exception as error:
            raise translate(error, sent=False) from error
        try:
            # One timeout for the whole: redis-py would set one for each reply.
            async with asyncio.timeout(self.settings.timeout.total_seconds()):
                await connection.send_packed_command(connection.pack_commands(commands))
                return [await self._reply(connection) for _ in commands]
        except BaseException:
            # Replies may still be on their way; the next user of the connection must not read them as its own.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await client.connection_pool.release(connection)

    async def _reply(self, connection: AbstractConnection) -> Any:
        try:
            return await connection.read_response(timeout=math.inf)
        except ResponseError as error:  # it belongs to its own command, and the others go on
            return error

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
