"""A held stage has empty hands where another worker may do what it cannot.

A dependency may be away for one worker alone, whose address for it or key is wrong. So what waits for such a one is
handed back, nothing more is taken, and the stage asks by itself, without a delivery, whether it is back.

working ──it is away──▶ empty hands ──it is back──▶ one delivery is to show it ──that is settled──▶ working
                             ▲─────────── it is away again ───────────┘
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

# A question without an answer must not hold up a stop.
_LAST_QUESTION_S: Final = 1.0


@dataclass
class EmptyHands:
    """A stage has empty hands while certain dependencies are away.

    Attributes:
        asks: for each dependency that may be away for this worker alone, what asks whether it is back. It raises
            DependencyDown if not.
        hands_back: whether another worker gets what the stage gives up; without, such a dependency is as any other.
        on_change: called when the stage takes nothing any more, and when it does again.
        is_to_show: whether a delivery is to show that the dependency is back.
    """

    asks: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    hands_back: bool = field(default=False, init=False)
    on_change: Callable[[], None] = field(default=lambda: None, init=False)
    is_to_show: bool = field(default=False, init=False)
    _showing: set[object] = field(default_factory=set, init=False, repr=False)
    _was_empty: bool = field(default=False, init=False, repr=False)
    _asking: asyncio.Task[None] | None = field(default=None, init=False, repr=False)

    def are_for(self, waits_for: str | None) -> bool:
        """Return whether a stage that waits for this has empty hands."""
        return self.hands_back and waits_for in self.asks

    def most(self, waits_for: str | None) -> int | None:
        """Return how many deliveries there is use for at once; None: any number."""
        if self.are_for(waits_for):
            return 0
        return max(1 - len(self._showing), 0) if self.is_to_show else None

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Count a delivery that may show it. What was begun before shows nothing."""
        taken = object()
        if self.is_to_show:
            self._showing.add(taken)
        try:
            yield
        finally:
            self._showing.discard(taken)

    def note(self, waits_for: str | None, *, is_to_show: bool = False) -> None:
        """Note what the stage waits for from now on.

        Args:
            waits_for: which dependency, or None.
            is_to_show: whether a delivery is to show that it is back.
        """
        self.is_to_show = is_to_show
        self._showing.clear()
        is_empty = self.are_for(waits_for)
        if is_empty != self._was_empty:
            self._was_empty = is_empty
            self.on_change()

    def ask(self, questions: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Have these questions asked, unless some are being asked."""
        if self._asking is None or self._asking.done():
            # They are no delivery's, and neither are the log lines about them.
            self._asking = asyncio.create_task(questions(), name=name, context=contextvars.Context())

    async def close(self) -> None:
        """End what is being asked."""
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=_LAST_QUESTION_S)
            self._asking.cancel()
            with suppress(asyncio.CancelledError):
                await self._asking
