"""The producer implements Faust's writing side, and reports the result of each entry."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any

from faust.transport.producer import Producer as FaustProducer
from faust.types import TP, HeadersArg, RecordMetadata
from faust.types.transports import ProducerT, TransportT

from .entry import encode_flat
from .errors import TransportError
from .health import Health
from .layout import Layout
from .outbox import Answer, Outbox, Outgoing, not_an_id
from .server import Client, Server, close

__all__ = ["EntryMetadata", "Producer"]


class EntryMetadata(RecordMetadata):
    """An entry was written at this place. `offset` holds its ID as one number, `entry_id` as Redis writes it."""

    __slots__ = ()

    @property
    def entry_id(self) -> str:
        """The entry's ID in the stream."""
        return f"{self.offset >> 20}-{self.offset & 0xFFFFF}"


class Producer(FaustProducer):
    """Writes to streams."""

    def __init__(self, transport: TransportT, *, server: Server, layout: Layout, health: Health, **kwargs: Any) -> None:
        super().__init__(transport, **kwargs)
        self._server = server
        self._layout = layout
        self._client: Client | None = None
        self._outbox = Outbox(server.settings, health)

    async def on_start(self) -> None:
        """Start writing."""
        await super().on_start()
        self._client = self._server.open()
        self.add_future(self._outbox.run(self._client))
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
        self._outbox.close()
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

        Waits while the outbox is full. The future fails with BrokerUnavailable or EntryRefused; nothing is repeated.
        """
        if partition is None:
            partition = self._layout.partition_for(topic, key)
        parts = entry_parts(key, value, headers, timestamp)
        future: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        # A caller that does not wait for the future still learns of the failure from Faust's sensors; without this,
        # the garbage collector would complain as well.
        future.add_done_callback(_retrieve)
        settle = partial(_resolve, future, TP(topic, partition))
        await self._outbox.put(Outgoing(self._layout.stream(topic, partition), parts, 1, settle))
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

    async def put(
        self, topic: str, partition: int, parts: list[bytes], entries: int
    ) -> asyncio.Future[Sequence[Answer]]:
        """Queue several entries of one partition (see `entry_parts`); the future holds what became of each.

        Waits while the outbox is full. The future itself never fails.
        """
        future: asyncio.Future[Sequence[Answer]] = asyncio.get_running_loop().create_future()
        settle = partial(_resolve_all, future)
        await self._outbox.put(Outgoing(self._layout.stream(topic, partition), parts, entries, settle))
        return future

    async def flush(self) -> None:
        """Wait until everything that was sent has been written, or has failed."""
        await self.buffer.flush()
        await self._outbox.flush()

    def partitions(self, topic: str) -> int:
        """Return the number of a topic's partitions."""
        return self._layout.partitions(topic)

    async def create_topic(self, topic: str, partitions: int, replication: int, **kwargs: Any) -> None:
        """Streams need not be created; remembers how many partitions there are."""
        self._layout.declare(topic, partitions)

    def key_partition(self, topic: str, key: bytes) -> TP:
        """Return the partition of a key."""
        return TP(topic, self._layout.partition_for(topic, key))

    def supports_headers(self) -> bool:
        """Headers are supported."""
        return True


def entry_parts(
    key: bytes | None, value: bytes | None, headers: HeadersArg | None, timestamp: float | None
) -> list[bytes]:
    """Return an entry as the outbox wants it: a count, then fields and values."""
    fields = encode_flat(key, value, headers, timestamp)
    return [b"%d" % len(fields), *fields]


def outcome(tp: TP, answer: Answer) -> EntryMetadata | TransportError:
    """Return Faust's metadata of a written entry, or the error of a refused one."""
    if not isinstance(answer, bytes):
        return answer
    milliseconds, _, sequence = answer.partition(b"-")
    try:
        time_ms, number = int(milliseconds), int(sequence)
    except ValueError:
        return not_an_id(answer)
    return EntryMetadata(tp.topic, tp.partition, tp, (time_ms << 20) + number, time_ms / 1000, 0)


def _resolve(future: asyncio.Future[RecordMetadata], tp: TP, answers: Sequence[Answer]) -> None:
    [answer] = answers
    if future.done():  # its caller does not wait any more
        return
    result = outcome(tp, answer)
    if isinstance(result, EntryMetadata):
        future.set_result(result)
    else:
        future.set_exception(result)


def _resolve_all(future: asyncio.Future[Sequence[Answer]], answers: Sequence[Answer]) -> None:
    if not future.done():
        future.set_result(answers)


def _retrieve(future: asyncio.Future[RecordMetadata]) -> None:
    if not future.cancelled():
        future.exception()
