"""The channels of the agents take messages from a topic. They say how much they can take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from faust import Event, Schema
from faust.exceptions import KeyDecodeError, ValueDecodeError
from faust.types import TP, AppT, ConsumerMessage

from .entry import decode_entry
from .partition import Partition

__all__ = ["Channels", "declare_room"]

# How many messages to hand over before other tasks get a turn.
_YIELD_EVERY = 100

_NO_TIMES = (None, None, None)  # when a message came in and went out, and what lies between: for Faust's sensors to set


def declare_room(channel: Any, room: Callable[[], int], most: Callable[[], int | None]) -> None:
    """Have `demand` ask how many messages an agent could start now.

    `most` asks how many it has use for at all.
    """
    # On the queue, which is what the copies that Faust makes of a channel share.
    channel.queue.room, channel.queue.most = room, most


class Channels:
    """All channels of an app, by topic and partition."""

    def __init__(self, app: AppT) -> None:
        self._app = app

    def of(self, tp: TP) -> list[Any]:
        """The channels through which agents read a partition. Faust's own index, filled when partitions are assigned.

        It also holds topics that no agent iterates over, such as the description of a reply topic; what is put into
        those would wait for ever.
        """
        found = self._app.topics._tp_index.get(tp, ())  # type: ignore[attr-defined]
        return [channel for channel in found if channel.is_iterator]

    def demand(self, tps: Iterable[TP]) -> tuple[int, int]:
        """Return how many messages of a topic wait, and how many could be started.

        The latter is how many agents wait for one, or what the agent says that starts several at once. With several
        agents on one topic each gets every message: the longest queue counts, and the most idle agents.
        """
        queued = idle = 0
        for channel in {id(channel): channel for tp in tps for channel in self.of(tp)}.values():
            queue = channel.queue
            queued = max(queued, queue.qsize())
            room = getattr(queue, "room", None)
            idle = max(idle, room() if room else sum(1 for getter in queue._getters if not getter.done()))
        return queued, idle

    def most(self, tps: Iterable[TP]) -> int | None:
        """Return how many messages of a topic its agents have use for.

        Those that wait are among them. None: any number.
        """
        most_of_all: int | None = 0
        channels = [channel for tp in tps for channel in self.of(tp)]
        for channel in channels:
            ask = getattr(channel.queue, "most", None)
            most = ask() if ask else None
            most_of_all = None if most is None or most_of_all is None else max(most, most_of_all)
        return most_of_all if channels else None

    async def deliver(
        self, partition: Partition, entries: Sequence[tuple[bytes, list[bytes]]], deliveries: int = 1
    ) -> None:
        """Give each entry a tag and hand it to all agents that read the topic.

        Args:
            partition: that the entries were read from.
            entries: the ID and the fields of each.
            deliveries: how often each has been delivered, this time included.
        """
        deliver_tag = partition.tags.deliver
        tp = partition.tp
        messages = []
        for entry_id, fields in entries:
            tag = deliver_tag(entry_id, deliveries)
            if tag is None:
                continue
            key, value, headers, timestamp = decode_entry(entry_id, fields)
            sizes = len(key or b""), len(value or b"")
            # By position: this runs for every event, and names cost as much as the message.
            message = ConsumerMessage(
                *tp, tag, timestamp, 0, cast("Any", headers), key, value, None, *sizes, tp, *_NO_TIMES, 0
            )
            messages.append(message)
        try:
            await self._put(tp, messages)
        except Exception:
            # Held, they would be renewed for ever. So they come again, and one that never gets through ends as poison.
            partition.tags.lose([entry_id for entry_id, _ in entries])
            raise

    async def _put(self, tp: TP, messages: Sequence[ConsumerMessage]) -> None:
        """Hand messages to the agents, decoded; waits while Faust holds the flow.

        As Faust's conductor does it, but without its lock and without a task for each message.
        """
        if not messages:
            return
        app = self._app
        await app.flow_control.acquire()
        await app.producer.buffer.wait_until_ebb()
        channels = self.of(tp)
        plain = [(channel, self._is_plain(channel)) for channel in channels]
        for number, message in enumerate(messages, 1):
            message.refcount += len(channels)
            for channel, is_plain in plain:
                if is_plain:
                    event = Event(app, message.key, message.value, message.headers, message)
                    channel.queue.force_put_nowait(event)
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
