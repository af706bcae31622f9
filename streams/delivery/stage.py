"""The stage wrapper takes each delivery to one durable outcome before it is acknowledged.

Faust drops what its codec cannot read and acknowledges in a `finally` what an agent's body gave up, so neither decoding
nor failing is left to it. A handler writes to Postgres in one transaction and returns the records that follow; they are
published next, and the agent acknowledges last. Dying after any of these steps repeats all of them, which is harmless
because handlers are idempotent by (job, run) and facts have IDs that follow from what they say.

working ──a dependency is away──▶ held: its deliveries ask in turn whether it is back, or it asks; see `standstill` and
        `empty_hands`
working ──most tries fail, of several organizations──▶ suspected: each delivery is tried once more at most, a new
        organization's at once, and then waits outside the worker; a success ends it

Trying a delivery decides its outcome once. While that outcome cannot be made durable it is kept and settled again; the
handler is not called again, so a held stage makes no call twice.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import InitVar, dataclass, field
from datetime import timedelta
from typing import Final, Generic, TypeVar

import structlog

from infra import tracing
from infra.errors import DependencyDown, InvalidEvent, Permanent, Postponed
from streams.delivery.brake import Brake
from streams.delivery.deliveries import Delivery, Outcome, Record, RetryLater, Settled
from streams.delivery.empty_hands import EmptyHands
from streams.delivery.policy import RetryPolicy, is_data_error
from streams.delivery.settle import Settler, Turn
from streams.delivery.standstill import BUG, PROBING, SUSPECTED, FailureWindow, Standstill
from streams.delivery.stopping import Waits, stay_cancelled

log = structlog.get_logger(__name__)
E = TypeVar("E")

# What is bound to every log line about a delivery, where its event has it.
_BOUND = ("job_id", "run", "trace_id")

# What says nothing about whether the stage itself works.
_NO_FAILED_TRY = DependencyDown | InvalidEvent | Permanent | Postponed

# A suspected stage keeps so few waiting itself. Whatever comes beyond is looked at, a moment later, and waits outside
# the worker, so that poison in all hands never keeps the stage from other senders' entries.
_MOST_IN_HAND: Final = 20
_MOMENT_S: Final = 1.0
_OUTSIDE_S: Final = (30.0, 60.0)


@dataclass
class Stage(Generic[E]):
    """One consumer group's way of handling the deliveries of its topics.

    Attributes:
        decode: reads a delivery; raises InvalidEvent.
        handle: makes the event's effect durable and returns what follows from it.
        settler: makes durable what came of a try.
        opened: takes away the internal headers that the pipeline has not written; see `streams.delivery.seal`.
        timeout: longest one try may take; it then counts as transient.
        is_last: whether nothing follows from its events, so that in a trace their batch stands for them.
        window: makes the stage suspected when most of its recent tries failed.
        brake: an operator's; a paused stage tries nothing.
        probing: how long a held stage waits before it asks again.
        asks: for each dependency that may be away for this worker alone, what asks whether it is back. It raises
            DependencyDown if not.
        waits: what it waits for without a delivery being tried; its stop ends them.
        standstill: why it stands still, if it does.
        empty_hands: what it has while a dependency is away that may be away for this worker alone.
    """

    decode: Callable[[Delivery], E]
    handle: Callable[[E, Delivery], Awaitable[Sequence[Record]]]
    settler: Settler[E]
    opened: Callable[[Delivery], Awaitable[Delivery]]
    policy: RetryPolicy
    timeout: timedelta
    is_last: bool = False
    window: FailureWindow = field(default_factory=FailureWindow)
    brake: Brake = field(default_factory=Brake)
    probing: InitVar[RetryPolicy] = PROBING
    asks: InitVar[Mapping[str, Callable[[], Awaitable[None]]] | None] = None
    waits: Waits = field(default_factory=Waits, init=False)
    standstill: Standstill = field(init=False)
    empty_hands: EmptyHands = field(init=False)
    _probe: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)
    _in_hand: int = field(default=0, init=False, repr=False)
    _tried: set[str | None] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self, probing: RetryPolicy, asks: Mapping[str, Callable[[], Awaitable[None]]] | None) -> None:
        """Begin with nothing known that would keep it from working."""
        self.standstill = Standstill(self.group, probing)
        self.empty_hands = EmptyHands(self.standstill, self.waits, asks or {})

    @property
    def group(self) -> str:
        """The consumer group, also the stage's name in logs and dead letters."""
        return self.settler.group

    @property
    def held(self) -> str | None:
        """The reason why it stands still, or None."""
        return self.standstill.why

    @property
    def waits_for(self) -> str | None:
        """The dependency that it waits for; see `Standstill`."""
        return self.standstill.waits_for

    async def process(self, delivery: Delivery) -> bool:
        """Take one delivery to a durable outcome, however long its dependencies are away.

        Raises nothing but CancelledError.

        Returns:
            Whether there is an outcome; the caller acknowledges then, and only then. If not, the stage has empty hands,
            or stops while it is held or paused: the delivery belongs back in its stream, for another worker.
        """
        with self.empty_hands.taking():
            return await self._process(Turn(delivery))

    async def _process(self, turn: Turn[E]) -> bool:
        if not self.brake.try_enter() and not await self.waits.has_come(self.brake.enter()):
            return False
        try:
            if self.held is None and await self._settled(turn):
                return True
            return await self._take_when_resumed(turn)
        finally:
            self.brake.leave()

    async def _take_when_resumed(self, turn: Turn[E]) -> bool:
        """Wait out a hold. One delivery at a time asks whether the stage can work again.

        They take turns, so that one which can never be settled does not keep the others waiting behind it.
        """
        if self._is_for_others(turn):
            return False
        if self._is_suspected(turn) and (settled := await self._try_new_organization(turn)) is not None:
            return settled
        self._in_hand += 1
        try:
            while await self.waits.has_come(self._probe.acquire()):
                try:
                    if self.held is not None:
                        if self._is_for_others(turn) or not await self.waits.has_come(self.standstill.next_probe()):
                            return False
                        if self._is_for_others(turn) or not await self._may_try(turn):
                            return False
                        self.standstill.probed()
                        if await self._settled(turn):
                            return True
                        continue
                finally:
                    self._probe.release()
                if not await self._may_try(turn):
                    return False
                if await self._settled(turn):
                    return True
            return False
        finally:
            self._in_hand -= 1

    def _is_for_others(self, turn: Turn[E]) -> bool:
        """Return whether another worker may do what this one cannot: no outcome waits here, nor half of one."""
        return self.empty_hands.are_empty and turn.outcome is None and turn.met in {None, self.waits_for}

    async def _may_try(self, turn: Turn[E]) -> bool:
        """Wait while the stage is paused; False: it stops. What a try came to is made durable all the same."""
        return turn.outcome is not None or await self.waits.has_come(self.brake.released())

    def _is_suspected(self, turn: Turn[E]) -> bool:
        return self.waits_for == SUSPECTED and turn.outcome is None

    async def _try_new_organization(self, turn: Turn[E]) -> bool | None:
        """Try the first delivery of an organization at once, or put one aside if many wait; None: wait with the others.

        The stage may work for other senders than those whose deliveries fail, and one success shows it.
        """
        try:
            await self._open(turn)
        except DependencyDown:
            return None
        organization = _organization(self._event_of(turn.delivery))
        if organization not in self._tried:
            self._tried.add(organization)
            return True if await self._settled(turn) else None
        if self._in_hand < _MOST_IN_HAND:
            return None
        if not await self.waits.has_come(asyncio.sleep(_MOMENT_S)):
            return False
        if not self._is_suspected(turn):
            return None
        delay = timedelta(seconds=random.uniform(*_OUTSIDE_S))
        turn.outcome = RetryLater(Postponed(f"{self.group} is held", delay=delay), delay, turn.delivery.attempt)
        return True if await self._settled(turn) else None

    def _event_of(self, delivery: Delivery) -> E | None:
        try:
            return self.decode(delivery)
        except Exception:  # noqa: BLE001 - trying it says what is wrong
            return None

    async def _settled(self, turn: Turn[E]) -> bool:
        times = self.standstill.times
        try:
            await self._open(turn)
            if not turn.delivery.is_for(self.group):
                return True
            if turn.outcome is None:
                turn.outcome = await self._try(turn)
            await self.settler.settle(turn, turn.outcome)
        except Exception as error:  # noqa: BLE001 - whatever could not be settled is taken again, never lost
            stay_cancelled(error)
            turn.met = error.dependency if isinstance(error, DependencyDown) else BUG
            self._hold(error)
            return False
        finally:
            structlog.contextvars.unbind_contextvars(*_BOUND)
        # What began before the dependency went away, and ends well now, says nothing about how it is. What says nothing
        # about the stage does not end a suspicion either.
        if times == self.standstill.times and not (self.waits_for == SUSPECTED and self.window.is_open):
            self._resume()
        return True

    async def _open(self, turn: Turn[E]) -> None:
        if not turn.opened:
            turn.delivery = await self.opened(turn.delivery)
            turn.opened = True

    async def _try(self, turn: Turn[E]) -> Outcome:
        """Handle the delivery once. Any error becomes an outcome, an outage a hold after which it is handled again."""
        event: E | None = None
        try:
            event = turn.event = self.decode(turn.delivery)
            self.brake.check(event)
            with self._span(event, turn.delivery) as event:
                turn.event = event
                named = {name: getattr(event, name, None) for name in _BOUND}
                structlog.contextvars.bind_contextvars(**{name: str(what) for name, what in named.items() if what})
                async with asyncio.timeout(self.timeout.total_seconds()):
                    outcome: Outcome = Settled(await self.handle(event, turn.delivery))
        except Exception as error:  # noqa: BLE001 - the one place where any error becomes an outcome
            stay_cancelled(error)
            return self.policy.outcome(error, turn.delivery, suspected=self._suspects(event, error))
        self.window.succeeded(_organization(event), getattr(event, "job_id", None))
        return outcome

    def _span(self, event: E, delivery: Delivery) -> AbstractContextManager[E]:
        span = tracing.taking if self.is_last else tracing.processing
        return span(self.group, delivery.topic, delivery.entry, delivery.attempt, event)

    def _suspects(self, event: E | None, error: Exception) -> bool:
        """Note a failed try, and hold if by now most of them fail."""
        if isinstance(error, _NO_FAILED_TRY) or is_data_error(error):
            return False
        organization = _organization(event)
        if not self.window.failed(organization, getattr(event, "job_id", None)):
            return False
        self._hold(DependencyDown(SUSPECTED, f"most deliveries fail, lately with {type(error).__name__}: {error}"))
        self._tried.add(organization)
        return True

    def _hold(self, error: Exception) -> None:
        self.standstill.begin(error)
        self.empty_hands.look()

    def _resume(self) -> None:
        self.standstill.end(shown=True)
        self.empty_hands.look()
        self._tried.clear()


def _organization(event: object) -> str | None:
    whose = getattr(getattr(event, "data", event), "organization_id", None)
    return whose if isinstance(whose, str) else None
