"""Telling a bad deploy from a bad job: how the recent tries of a stage went, taken together.

closed ──most recent tries failed──▶ open ──a probe succeeds──▶ closed

While it is open nobody's failure counts against a job: the stage holds and probes with one delivery at a time. A flood
of unreadable or refused events does not open it, since those are the events' own fault.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class FailureWindow:
    """The outcomes of a stage's recent tries.

    Attributes:
        seconds: how far back it looks at most. Longer: remembers the failures of a quiet stage; shorter: forgets them.
        minimum: failures without which it never opens, so that a few bad jobs on a quiet stage fail as themselves; it
            looks at the last tries, twice as many. Higher: more of the backlog is spent before a bad deploy is noticed.
    """

    seconds: float = 60.0
    minimum: int = 20
    clock: Callable[[], float] = time.monotonic
    is_open: bool = field(default=False, init=False)
    _tries: deque[tuple[float, bool]] = field(default_factory=deque, init=False)
    _failures: int = field(default=0, init=False)

    def succeeded(self) -> None:
        """Note a success. One is enough to close the window; old failures may open it again."""
        self.is_open = False
        self._note(failed=False)

    def failed(self) -> bool:
        """Note a failure; return whether the stage should stand still instead of blaming the job."""
        self._note(failed=True)
        if self._failures >= self.minimum and 2 * self._failures > len(self._tries):
            self.is_open = True
        return self.is_open

    def _note(self, *, failed: bool) -> None:
        now = self.clock()
        while self._tries and (len(self._tries) >= 2 * self.minimum or self._tries[0][0] < now - self.seconds):
            self._forget()
        self._tries.append((now, failed))
        self._failures += failed

    def _forget(self) -> None:
        _, failed = self._tries.popleft()
        self._failures -= failed
