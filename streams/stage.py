"""The stage wrapper: it takes every delivery to exactly one durable outcome before the delivery is acknowledged.

Faust drops what its codec cannot read and acknowledges in a `finally` what an agent's body gave up, so neither decoding
nor failing is left to it. A handler writes to Postgres in one transaction and returns the records that follow; they are
published next, and the agent acknowledges last. Dying after any of these steps repeats all of them, which is harmless
because handlers are idempotent by (job, run) and facts have IDs that follow from what they say.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Generic, Protocol, TypeVar, assert_never

import structlog

from infra import telemetry
from infra.errors import DependencyDown, InvalidEvent, Permanent, Postponed
from streams.dead_letters import NOT_YET_KEPT, UNTIL_KEPT, dead_letter
from streams.deliveries import ATTEMPT, FOR_GROUP, DeadLetter, Delivery, Hold, Outcome, Record, RetryLater, Settled
from streams.failure_window import FailureWindow
from streams.policy import RetryPolicy

log = structlog.get_logger(__name__)
E = TypeVar("E")

# What is bound to every log line about a delivery, where its event has it.
_BOUND = ("job_id", "run", "trace_id")

# The cap is about the longest that a stage lies idle after its dependency is back.
PROBING = RetryPolicy(max_attempts=1, base=timedelta(seconds=0.2), cap=timedelta(seconds=5))

BUG: Final = "bug"  # what a stage waits for that stands still because of one

# What says nothing about whether the stage itself works.
_NO_FAILED_TRY = DependencyDown | InvalidEvent | Permanent | Postponed


class Publisher(Protocol):
    """Whoever can write to topics."""

    async def publish(self, records: Sequence[Record]) -> None:
        """Return when the broker has all records. Raises DependencyDown when it may not have them all."""
        ...


class RetrySchedule(Protocol):
    """Whoever can keep a record until it is due."""

    async def schedule(self, record: Record, delay: timedelta, *, reason: str) -> None:
        """Return when the record is durably kept; repeating the call keeps it once."""
        ...


def stay_cancelled(error: Exception) -> None:
    """Raise CancelledError if the worker is stopping: the error may come of that, and is nobody's fault.

    A driver that is cancelled in the middle of a statement may raise an error of its own instead. That would be taken
    for an outage, or for the job's failure, and would keep the agent from stopping.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error


async def _no_consequences(_event: object, _error: Exception) -> Sequence[Record]:
    return ()


@dataclass
class Stage(Generic[E]):
    """One consumer group's way of handling the deliveries of its topics.

    Attributes:
        group: the consumer group, also the stage's name in logs and dead letters.
        decode: reads a delivery; raises InvalidEvent.
        handle: makes the event's effect durable and returns what follows from it.
        give_up: makes it durable that the stage gave the event up and returns what follows (a JobFailed, say).
        timeout: longest one try may take; it then counts as transient.
        probing: how long a held stage waits before it asks again.
        window: holds the stage when most of its recent tries failed.
        held: why the stage stands still, or None.
        waits_for: which dependency a held stage waits for; `bug` if something else keeps it from working; or None.
    """

    group: str
    decode: Callable[[Delivery], E]
    handle: Callable[[E], Awaitable[Sequence[Record]]]
    publisher: Publisher
    retries: RetrySchedule
    policy: RetryPolicy
    timeout: timedelta
    give_up: Callable[[E, Exception], Awaitable[Sequence[Record]]] = _no_consequences
    probing: RetryPolicy = PROBING
    window: FailureWindow = field(default_factory=FailureWindow)
    held: str | None = field(default=None, init=False)
    waits_for: str | None = field(default=None, init=False)
    _holds: int = field(default=0, init=False, repr=False)
    _probes: int = field(default=0, init=False, repr=False)
    _until_next_probe: timedelta = field(default=timedelta(), init=False, repr=False)
    _probe: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)
    _stopping: bool = field(default=False, init=False, repr=False)
    _patience: set[asyncio.Timeout] = field(default_factory=set, init=False, repr=False)

    async def process(self, delivery: Delivery) -> bool:
        """Take one delivery to a durable outcome, however long its dependencies are away.

        Raises nothing but CancelledError.

        Returns:
            Whether there is an outcome; the caller acknowledges then, and only then. If not, the stage stops while it
            is held: the delivery belongs back in its stream, for another worker.
        """
        if not delivery.is_for(self.group):
            return True
        if self.held is None and await self._settled(delivery):
            return True
        return await self._take_when_resumed(delivery)

    def stop(self) -> None:
        """Wait out holds no longer. What is being tried, probes included, goes on to its end."""
        self._stopping = True
        for patience in self._patience:
            patience.reschedule(asyncio.get_running_loop().time())

    async def _take_when_resumed(self, delivery: Delivery) -> bool:
        """Wait out a hold. One delivery at a time asks whether the stage can work again.

        They take turns, so that one which can never be settled does not keep the others waiting behind it.
        """
        while await self._has_waited_for(self._probe.acquire()):
            try:
                if self.held is not None:
                    if not await self._has_waited_for(asyncio.sleep(self._until_next_probe.total_seconds())):
                        return False
                    self._probes += 1
                    if await self._settled(delivery):
                        return True
                    continue
            finally:
                self._probe.release()
            if await self._settled(delivery):
                return True
        return False

    async def _has_waited_for(self, turn: Awaitable[object]) -> bool:
        """Return True when this has come, or False as soon as the stage stops."""
        patience = asyncio.timeout(0 if self._stopping else None)
        self._patience.add(patience)
        try:
            async with patience:
                await turn
        except TimeoutError:
            return False
        finally:
            self._patience.discard(patience)
        return True

    async def _settled(self, delivery: Delivery) -> bool:
        holds = self._holds
        try:
            await self._settle(delivery, await self._decide(delivery))
        except Exception as error:  # noqa: BLE001 - whatever could not be settled is taken again, never lost
            stay_cancelled(error)
            self._hold(error)
            return False
        finally:
            structlog.contextvars.unbind_contextvars(*_BOUND)
        # What began before the dependency went away, and ends well now, says nothing about how it is.
        if holds == self._holds:
            self._resume()
        return True

    async def _decide(self, delivery: Delivery) -> Outcome:
        """Handle the delivery once. Any error becomes an outcome."""
        event: E | None = None
        try:
            event = self.decode(delivery)
            named = {name: getattr(event, name, None) for name in _BOUND}
            structlog.contextvars.bind_contextvars(**{name: str(what) for name, what in named.items() if what})
            async with asyncio.timeout(self.timeout.total_seconds()):
                outcome: Outcome = Settled(await self.handle(event))
        except Exception as error:  # noqa: BLE001 - the one place where any error becomes an outcome
            stay_cancelled(error)
            outcome = self.policy.outcome(error, delivery)
            if not isinstance(error, _NO_FAILED_TRY) and self.window.failed():
                return Hold(
                    DependencyDown("stage", f"most deliveries fail, lately with {type(error).__name__}: {error}")
                )
            if isinstance(outcome, DeadLetter):
                return await self._give_up(event, outcome.error, delivery)
            return outcome
        self.window.succeeded()
        return outcome

    async def _give_up(self, event: E | None, error: Exception, delivery: Delivery) -> DeadLetter | Hold:
        """Keep the letter in Postgres until `failed_events` has it: the broker may lose it before anybody reads it.

        It comes first, so that no run has failed of which nothing is kept. Dying after it leaves a letter about a try
        that did fail, though the next one may succeed.
        """
        letter = dead_letter(delivery, group=self.group, error=error)
        try:
            await self.retries.schedule(letter, UNTIL_KEPT, reason=NOT_YET_KEPT)
            facts = () if event is None else await self.give_up(event, error)
        except DependencyDown as down:
            return Hold(down)
        return DeadLetter(error, publish=[*facts, letter])

    async def _settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Make the outcome durable. Raises DependencyDown to have the delivery taken again from the start."""
        match outcome:
            case Hold(error=down):
                raise down
            case Settled(publish=records):
                if records:
                    await self.publisher.publish(records)
            case RetryLater(error=error, delay=delay, attempt=attempt):
                again = Record(delivery.topic, delivery.key, delivery.value, self._headers(delivery, attempt))
                await self.retries.schedule(again, delay, reason=f"{type(error).__name__}: {error}")
                log.warning(
                    "delivery.retried", **self._context(delivery), delay_s=delay.total_seconds(), why=str(error)
                )
            case DeadLetter(error=error, publish=records):
                await self.publisher.publish(records)
                log.error("delivery.dead_lettered", **self._context(delivery), why=str(error))
            case _:
                assert_never(outcome)
        telemetry.OUTCOMES.labels(self.group, type(outcome).__name__).inc()

    def _headers(self, delivery: Delivery, attempt: int) -> dict[str, bytes]:
        return {**delivery.headers, ATTEMPT: str(attempt).encode(), FOR_GROUP: self.group.encode()}

    def _context(self, delivery: Delivery) -> dict[str, object]:
        key = (delivery.key or b"").decode(errors="replace")
        return {"stage": self.group, "topic": delivery.topic, "key": key, "attempt": delivery.attempt}

    def _hold(self, error: Exception) -> None:
        """Stand still. An outage is expected and says when it is over; anything else is a bug that someone must see."""
        if isinstance(error, DependencyDown):
            retry_after, self.waits_for = error.retry_after, error.dependency
            if self.held is None:
                log.warning("stage.held", stage=self.group, why=str(error))
        else:
            retry_after, self.waits_for = None, BUG
            log.error("stage.held", stage=self.group, why=str(error), exc_info=error)
        self.held = f"{type(error).__name__}: {error}"
        self._holds += 1
        # Only probes lengthen the wait: hundreds of deliveries may fail at once when the dependency goes away.
        self._until_next_probe = self.probing.delay(self._probes + 1, retry_after)

    def _resume(self) -> None:
        if self.held is not None:
            log.info("stage.resumed", stage=self.group)
        self.held = self.waits_for = None
        self._probes = 0
