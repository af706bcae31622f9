"""Health says whether the transport's loops still turn, without any I/O."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from .wrong_url import advice_on

__all__ = ["Health"]


class Health:
    """The last sign of life of each loop."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._loops: dict[str, tuple[float, float]] = {}  # loop to (last sign of life, most seconds between two)
        self._errors: dict[str, str] = {}

    def expect(self, loop: str, every: float) -> None:
        """Require a sign of life from `loop` at least every so many seconds."""
        self._loops[loop] = (self._clock(), every)

    def alive(self, loop: str) -> None:
        """The loop has done a round that reached the server."""
        last = self._loops.get(loop)
        if last is not None:
            self._loops[loop] = (self._clock(), last[1])
        self._errors.pop(loop, None)

    def failing(self, loop: str, error: BaseException) -> None:
        """The loop could not do its round."""
        self._errors[loop] = f"{type(error).__name__}: {error}{advice_on(error)}"

    def forget(self, loop: str) -> None:
        """The loop has ended as it should."""
        self._loops.pop(loop, None)
        self._errors.pop(loop, None)

    def problems(self) -> list[str]:
        """Return one sentence for each current problem; empty when all is well."""
        now = self._clock()
        found = [f"{loop} fails: {error}" for loop, error in self._errors.items()]
        for loop, (last, every) in self._loops.items():
            if loop not in self._errors and now - last > every:
                found.append(f"{loop} stands still for {now - last:.0f} s")
        return found
