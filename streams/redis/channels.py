"""The agents' side: which channels read a topic, how much they can take, and how messages get there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from faust import Event, Schema
from faust.exceptions import KeyDecodeError, ValueDecodeError
from faust.types import TP, AppT, ConsumerMessage

__all__ = ["Channels"]

# How many messages to hand over before other tasks get a turn.
_YIELD_EVERY = 100


class Channels:
    """All channels of an app, by topic and partition."""

    def __init__(self, app: AppT) -> None:
        self._app = app

    def of(self, tp: TP) -> set[Any]:
        """The channels that read a partition. Faust's own index, filled when partitions are assigned."""
        channels: set[Any] = self._app.topics._tp_index.get(tp, set())  # type: ignore[attr-defined]
        return channels

    def demand(self, topic: str) -> tuple[int, int]:
        """How many messages of a topic wait for an agent, and how many agents wait for a message.

        With several agents on one topic each gets every message, so the slowest one counts.
        """
        queued = 0
        idle: int | None = None
        for channel in {channel for tp, found in self._index() if tp.topic == topic for channel in found}:
            queue = channel.queue
            queued = max(queued, queue.qsize())
            waiting = sum(1 for getter in queue._getters if not getter.done())
            idle = waiting if idle is None else min(idle, waiting)
        return queued, idle or 0

    def _index(self) -> list[tuple[TP, set[Any]]]:
        return list(self._app.topics._tp_index.items())  # type: ignore[attr-defined]

    async def put(self, tp: TP, messages: Sequence[ConsumerMessage]) -> None:
        """Hand messages to the agents, decoded; waits while Faust holds the flow.

        As Faust's conductor does it, but without its lock and without a task for each message.
        """
        if not messages:
            return
        app = self._app
        await app.flow_control.acquire()
        await app.producer.buffer.wait_until_ebb()
        channels = self.of(tp)
        if len(channels) != 1:
            for message in messages:
                await app.topics.on_message(message)
            return
        [channel] = channels
        put = channel.queue.force_put_nowait
        plain = self._is_plain(channel)
        for number, message in enumerate(messages, 1):
            message.refcount += 1
            if plain:
                put(Event(app, message.key, message.value, message.headers, message))
            else:
                await self._decode(channel, message)
            if not number % _YIELD_EVERY:
                await asyncio.sleep(0)

    async def _decode(self, channel: Any, message: ConsumerMessage) -> None:
        try:
            event = await channel.decode(message, propagate=True)
        except KeyDecodeError as error:
            message.ack(self._app.consumer)
            await channel.on_key_decode_error(error, message)
        except ValueDecodeError as error:
            message.ack(self._app.consumer)
            await channel.on_value_decode_error(error, message)
        else:
            channel.queue.force_put_nowait(event)

    def _is_plain(self, channel: Any) -> bool:
        """Whether an event's key and value are the message's bytes, so that nothing is left to decode."""
        schema = channel.schema
        return (
            type(schema) is Schema
            and schema.key_type is bytes
            and schema.value_type is bytes
            and schema.key_serializer == schema.value_serializer == "raw"
            and cast("Any", self._app.conf.Event) is Event
        )
