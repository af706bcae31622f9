"""This stream yields to the event loop when it must, not for every event.

Faust's own iterator sleeps for zero seconds before each event, so that agents which never wait for anything leave room
for others. That is a round of the event loop for each event, which costs more than everything else an event needs.
This one gives way after a number of events, and otherwise does step by step what Faust's does: the same tracking,
sensors, processors and acknowledgements (compare `Stream._py_aiter` in faust/streams.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple, cast

from faust import Stream as FaustStream
from faust.exceptions import Skip
from faust.topics import Topic
from faust.types import EventT
from mode.utils.futures import maybe_async
from mode.utils.times import Seconds, want_seconds

from .channels import declare_room
from .consumer import Consumer

__all__ = ["Stream"]

# After so many events without a pause, other tasks get a turn: about a millisecond of an agent that does nothing.
_GIVE_WAY_EVERY = 32


class _Batch(NamedTuple):
    """Events that were taken together, and what the sensors want back of each."""

    events: list[EventT[Any]]
    states: list[Any]


class Stream(FaustStream[Any]):
    """Faust's stream with a cheaper iterator for topics."""

    @property
    def _place(self) -> tuple[int, int | None]:
        """Which agent iterates here. An agent that is started again has another stream, but the same place."""
        return id(self.channel), self.concurrency_index

    def ask_room(self, room: Callable[[], int], most: Callable[[], int | None] = lambda: None) -> None:
        """Ask this how many events the agent could start now.

        For one that starts a task for each event, instead of one event at a time.

        Args:
            room: how many.
            most: how many it has use for, those that are kept ready included; None: as many as its rate asks for.
        """
        declare_room(self.channel, room, most)

    def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over the values; Faust's own iterator serves whatever is no topic of this transport."""
        if not isinstance(self.channel, Topic) or not isinstance(self.app.consumer, Consumer):
            return super().__aiter__()
        iterator = self._iterate(self.channel, self.app.consumer)
        self._active_agens.add(iterator)
        return iterator

    def take(self, max_: int, within: Seconds) -> AsyncGenerator[Sequence[Any], None]:
        """Yield batches of at most `max_` values. Each is complete, or closed `within` that time of its first value.

        As Faust's own, every event of a batch is acknowledged when the next batch is asked for. Taken straight from the
        queue, where Faust's passes each event through a second task; streams with processors use Faust's.
        """
        consumer = self.app.consumer
        if not isinstance(self.channel, Topic) or not isinstance(consumer, Consumer) or self._processors:
            return super().take(max_, within)
        batches = self._take(self.channel, consumer, max_, want_seconds(within))
        self._active_agens.add(batches)
        return batches

    async def _take(
        self, topic: Topic, consumer: Consumer, most: int, within_s: float
    ) -> AsyncGenerator[Sequence[Any], None]:
        self._finalized = True
        started_here = await self.maybe_start()
        consumer.abandon(self._place)
        batch = _Batch([], [])
        try:
            while not self.should_stop:
                await asyncio.sleep(0)
                await self._gather(batch, topic, consumer, most, within_s)
                if not batch.events:
                    continue
                self.events_total += len(batch.events)
                self._set_current_event(batch.events[-1])
                try:
                    yield [event.value for event in batch.events]
                finally:
                    self.current_event = None
                    for event, state in zip(batch.events, batch.states, strict=True):
                        self._finish(event, consumer, state)
                    batch = _Batch([], [])
        except StopAsyncIteration:
            return
        finally:
            self._channel_stop_iteration(topic)
            if started_here:
                await self.stop()
                self.service_reset()

    async def _gather(self, batch: _Batch, topic: Topic, consumer: Consumer, most: int, within_s: float) -> None:
        """Start events until there are enough, or until the time since the first one is over."""
        queue = topic.queue
        waiting = cast("deque[EventT[Any]]", queue._queue)  # type: ignore[attr-defined]
        is_active = self.app.flow_control.is_active
        start, place = self._start, self._place
        events, states = batch
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as limit:
                while len(events) < most:
                    event = queue.get_nowait() if waiting else await queue.get()
                    if not is_active():
                        continue
                    if not events:
                        limit.reschedule(asyncio.get_running_loop().time() + within_s)
                    taken = [event, *(waiting.popleft() for _ in range(min(len(waiting), most - len(events) - 1)))]
                    events += taken
                    states += [start(event, consumer, place) for event in taken]

    async def _iterate(self, topic: Topic, consumer: Consumer) -> AsyncGenerator[Any, None]:
        # What is looked up here once would be looked up for every event below.
        self._finalized = True
        started_here = await self.maybe_start()
        consumer.abandon(self._place)
        skipped = self._skipped_value
        queue = topic.queue
        waiting = cast("deque[EventT[Any]]", queue._queue)  # type: ignore[attr-defined]
        is_active = self.app.flow_control.is_active
        start, finish, place = self._start, self._finish, self._place
        without_pause = 0
        try:
            while not self.should_stop:
                acknowledge = self.enable_acks
                if without_pause >= _GIVE_WAY_EVERY or not waiting:
                    without_pause = 0
                    await asyncio.sleep(0)
                without_pause += 1
                event: EventT[Any] = queue.get_nowait() if waiting else await queue.get()
                if not is_active():
                    # While the flow is held, what is still queued belongs to the fetch loop again.
                    continue
                self._set_current_event(event)
                state = start(event, consumer, place)
                value = event.value
                if self._processors or self.join_strategy:
                    value = await self._process(value)
                    if value is None:  # a join that waits for its other half
                        continue
                try:
                    if value is not skipped:
                        self.events_total += 1
                        yield value
                finally:
                    self.current_event = None
                    if acknowledge or value is skipped:
                        finish(event, consumer, state)
        except StopAsyncIteration:
            return  # Faust throws this into the channel to end the stream
        finally:
            self._channel_stop_iteration(topic)
            if started_here:
                await self.stop()
                self.service_reset()

    def _start(self, event: EventT[Any], consumer: Consumer, place: Any) -> Any:
        message = event.message
        tp, tag = message.tp, message.offset
        if not message.tracked and message.topic in consumer.acking_topics:
            message.tracked = True
            consumer.under_way[message] = place
            self._on_message_in(tp, tag, message)
        return self._on_stream_event_in(tp, tag, self, event)

    async def _process(self, value: Any) -> Any:
        try:
            for processor in self._processors:
                value = await maybe_async(processor(value))
            return await self.on_merge(value)
        except Skip:
            return self._skipped_value

    def _finish(self, event: EventT[Any], consumer: Consumer, state: Any) -> None:
        message = event.message
        tp, tag = message.tp, message.offset
        last = False
        if not message.acked:
            # Several agents may share the message; the last one to finish acknowledges it.
            message.refcount = max(message.refcount - 1, 0)
            last = not message.refcount and consumer.ack(message)
        self._on_stream_event_out(tp, tag, self, event, state)
        if last:
            self._on_message_out(tp, tag, message)
