"""A held stage has empty hands where another worker may do what it cannot.

A dependency may be away for one worker alone, whose address for it or key is wrong. So what waits for such a one is
handed back, nothing more is taken, and the stage asks by itself, without a delivery, whether it is back.

working ──it is away──▶ empty hands ──it is back──▶ one delivery is to show it ──that is settled──▶ working
                             ▲─────────── it is away again ───────────┘
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from streams.delivery.standstill import Standstill
from streams.delivery.stopping import Waits, stay_cancelled

# A question without an answer must not hold up a stop.
_LAST_QUESTION_S: Final = 1.0


@dataclass
class EmptyHands:
    """A stage has empty hands while certain dependencies are away.

    Attributes:
        standstill: the stage's.
        waits: the stage's.
        asks: for each dependency that may be away for this worker alone, what asks whether it is back. It raises
            DependencyDown if not.
        hands_back: whether another worker gets what the stage gives up; without, such a dependency is as any other.
        on_change: called when the stage takes nothing any more, and when it does again.
    """

    standstill: Standstill
    waits: Waits
    asks: Mapping[str, Callable[[], Awaitable[None]]]
    hands_back: bool = field(default=False, init=False)
    on_change: Callable[[], None] = field(default=lambda: None, init=False)
    _is_to_show: bool = field(default=False, init=False, repr=False)
    _showing: set[object] = field(default_factory=set, init=False, repr=False)
    _were_empty: bool = field(default=False, init=False, repr=False)
    _asking: asyncio.Task[None] | None = field(default=None, init=False, repr=False)

    @property
    def are_empty(self) -> bool:
        """Return whether the stage takes nothing, because other workers may do what it cannot."""
        return self.hands_back and self.standstill.waits_for in self.asks

    @property
    def most(self) -> int | None:
        """Return how many deliveries there is use for at once; None: any number."""
        if self.are_empty:
            return 0
        return max(1 - len(self._showing), 0) if self._is_to_show else None

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Count a delivery that may show it. What was begun before shows nothing."""
        taken = object()
        if self._is_to_show:
            self._showing.add(taken)
        try:
            yield
        finally:
            self._showing.discard(taken)

    def look(self, *, is_to_show: bool = False) -> None:
        """Look at what the stage waits for now.

        It is asked for from now on if it may be away for this worker alone.

        Args:
            is_to_show: whether a delivery is to show that it is back.
        """
        self._is_to_show = is_to_show
        self._showing.clear()
        if self.are_empty != self._were_empty:
            self._were_empty = self.are_empty
            self.on_change()
        if self.are_empty and (self._asking is None or self._asking.done()):
            # The questions are no delivery's, and neither are the log lines about them.
            name = f"{self.standstill.group} asks"
            self._asking = asyncio.create_task(self._ask(), name=name, context=contextvars.Context())

    async def close(self) -> None:
        """End what is being asked."""
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=_LAST_QUESTION_S)
            self._asking.cancel()
            with suppress(asyncio.CancelledError):
                await self._asking

    async def _ask(self) -> None:
        """Ask whether the dependency is back, until it is."""
        while (waits_for := self.standstill.waits_for) and self.are_empty:
            if not await self.waits.has_come(self.standstill.next_probe()):
                return
            times = self.standstill.times
            self.standstill.probed()
            try:
                await self.asks[waits_for]()
            except Exception as error:  # noqa: BLE001 - whatever it is, the stage is held for it
                stay_cancelled(error)
                self.standstill.begin(error)
                self.look()
                continue
            if times == self.standstill.times and self.standstill.why is not None:
                self.standstill.end(shown=False)
                self.look(is_to_show=True)
