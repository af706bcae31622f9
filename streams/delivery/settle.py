"""The settler makes durable what came of a delivery's try: published, kept, or given up."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, assert_never

import structlog

from infra import telemetry
from infra.errors import DependencyDown
from infra.postgres_errors import DATA_ERRORS
from streams.delivery.dead_letters import dead_letter
from streams.delivery.deliveries import (
    ATTEMPT,
    FOR_GROUP,
    DeadLetter,
    Delivery,
    Hold,
    Outcome,
    Record,
    RetryLater,
    Settled,
)
from streams.delivery.interfaces import FailedEventStore, Publisher, RetrySchedule
from streams.delivery.letters import failed_event_of
from streams.delivery.stopping import stay_cancelled

log = structlog.get_logger(__name__)
E = TypeVar("E")


async def no_consequences(_event: object, _delivery: Delivery, _error: Exception) -> Sequence[Record]:
    """Return nothing: no job ends because such a delivery is given up."""
    return ()


@dataclass
class Turn(Generic[E]):
    """One delivery that is being handled, and how far it has come.

    Attributes:
        outcome: what its try came to, until that is durable; None: it is to be tried.
        met: what kept its last try from an outcome, as a stage's `waits_for`; None: nothing did, or it was not tried.
        letter: the dead letter, which a repeat must not date anew.
    """

    delivery: Delivery
    opened: bool = False
    event: E | None = None
    outcome: Outcome | None = None
    met: str | None = None
    letter: Record | None = None


@dataclass
class Settler(Generic[E]):
    """Makes outcomes durable, for one consumer group.

    Attributes:
        group: the consumer group.
        publisher: writes what follows.
        retries: keeps what is tried again later.
        failed_events: keeps what is given up.
        give_up: makes it durable that the stage gave the event up and returns what follows (a JobFailed, say).
    """

    group: str
    publisher: Publisher
    retries: RetrySchedule
    failed_events: FailedEventStore
    give_up: Callable[[E, Delivery, Exception], Awaitable[Sequence[Record]]] = no_consequences

    async def settle(self, turn: Turn[E], outcome: Outcome) -> None:
        """Make the outcome durable. Raises DependencyDown to have this repeated after a hold."""
        delivery = turn.delivery
        match outcome:
            case Hold(error=down):
                turn.outcome = None
                raise down
            case Settled(publish=records):
                if records:
                    await self.publisher.publish(records)
            case RetryLater(error=error, delay=delay, attempt=attempt):
                again = Record(delivery.topic, delivery.key, delivery.value, self._headers(delivery, attempt))
                try:
                    await self.retries.schedule(again, delay, reason=f"{type(error).__name__}: {error}")
                except DATA_ERRORS as unkeepable:
                    turn.outcome = DeadLetter(unkeepable)
                    await self.settle(turn, turn.outcome)
                    return
                log.warning(
                    "delivery.retried", **self._context(delivery), delay_s=delay.total_seconds(), why=str(error)
                )
            case DeadLetter(error=error):
                await self._give_up(turn, error)
                log.error("delivery.dead_lettered", **self._context(delivery), why=str(error))
            case _:
                assert_never(outcome)
        telemetry.OUTCOMES.labels(self.group, type(outcome).__name__).inc()

    async def _give_up(self, turn: Turn[E], error: Exception) -> None:
        """Keep the letter, end the job, then tell both.

        The letter comes first, so that no run has failed of which nothing is kept. Dying after it leaves a letter about
        a try that did fail, though the next one may succeed. If the job cannot be ended, the letter stands alone, and
        the reconciler ends the run.
        """
        if turn.letter is None:
            turn.letter = dead_letter(turn.delivery, group=self.group, error=error)
        letter = turn.letter
        await self.failed_events.keep_one(failed_event_of(letter))
        facts: Sequence[Record] = ()
        if turn.event is not None:
            try:
                facts = await self.give_up(turn.event, turn.delivery, error)
            except DependencyDown:
                raise
            except Exception as failure:
                stay_cancelled(failure)
                log.exception("delivery.not_given_up", **self._context(turn.delivery))
        await self.publisher.publish([*facts, letter])

    def _headers(self, delivery: Delivery, attempt: int) -> dict[str, bytes]:
        return {**delivery.headers, ATTEMPT: str(attempt).encode(), FOR_GROUP: self.group.encode()}

    def _context(self, delivery: Delivery) -> dict[str, object]:
        key = (delivery.key or b"").decode(errors="replace")
        return {"stage": self.group, "topic": delivery.topic, "key": key, "attempt": delivery.attempt}
