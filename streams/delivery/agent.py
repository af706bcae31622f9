"""An agent takes the deliveries of one topic through a stage, many at once.

Faust's own way to many at once is as many copies of the agent. Each has a stream and a supervisor's care, 42 KB that
lie idle most of the time, and a worker has hundreds. So there is one, which starts a task for each delivery.

Acknowledging is explicit and comes last: Faust's own acknowledgement sits in a `finally` (faust/streams.py,
`_py_aiter`) and would settle what a cancelled agent never finished.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias, cast

from faust.streams import Stream
from faust.types import EventT, Message, StreamT

from infra.clock import is_sane
from streams.delivery.deliveries import Delivery
from streams.delivery.stage import Stage
from streams.delivery.stopping import stay_cancelled
from streams.redis.consumer import Consumer as RedisConsumer
from streams.redis.stream import Stream as RedisStream

Agent: TypeAlias = Callable[[StreamT[bytes]], Awaitable[None]]


def agent_of(stage: Stage[Any], *, at_once: int) -> Agent:
    """Return an agent that takes so many deliveries through the stage at once."""

    async def consume(stream: StreamT[bytes]) -> None:
        places = _Places(at_once)
        if isinstance(stream, RedisStream):
            stream.ask_room(lambda: places.free, lambda: stage.empty_hands.most)
            stage.empty_hands.hands_back = True
        try:
            async with asyncio.TaskGroup() as under_way:
                async for event in cast("Stream[bytes]", stream).noack().events():
                    places.take()
                    under_way.create_task(_process(stage, event, places))
                    # Before the next event is taken: taken, it would count as begun, and be kept from other workers.
                    await places.some_free()
        except Exception as error:
            # A stopping agent has no supervisor any more, and Faust would fail asking it for a new actor
            # (faust/agents/agent.py, `_execute_actor`): the worker would exit as if it had crashed.
            stay_cancelled(error)
            raise

    return consume


async def _process(stage: Stage[Any], event: EventT[bytes], places: "_Places") -> None:
    try:
        if await stage.process(delivery_of(event)):
            event.ack()
        else:
            consumer = event.app.consumer
            if isinstance(consumer, RedisConsumer):
                consumer.give_back(event.message)
            else:
                # It neither waits for it nor counts it as begun.
                consumer.unacked.discard(event.message)
    finally:
        places.leave()


class _Places:
    """The places for deliveries under way."""

    def __init__(self, number: int) -> None:
        self.free = number
        self._left = asyncio.Event()

    def take(self) -> None:
        self.free -= 1

    def leave(self) -> None:
        self.free += 1
        self._left.set()

    async def some_free(self) -> None:
        while not self.free:
            self._left.clear()
            await self._left.wait()


def delivery_of(event: EventT[bytes]) -> Delivery:
    """Return what the broker handed over: the bytes, before any codec."""
    message = event.message
    entry_of = getattr(event.app.consumer, "entry_of", _position)
    headers = message.headers.items() if isinstance(message.headers, Mapping) else message.headers or ()
    written_at = _moment(message.timestamp)
    return Delivery(message.topic, message.key, message.value, dict(headers), entry_of(message), written_at)


def _moment(timestamp_s: float | None) -> datetime | None:
    try:
        moment = datetime.fromtimestamp(timestamp_s or 0, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment if timestamp_s and is_sane(moment) else None


def _position(message: Message) -> str:
    # On Kafka an entry is where it stands.
    return f"{message.topic}/{message.partition}/{message.offset}"
