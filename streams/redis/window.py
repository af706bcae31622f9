"""The window says how many entries of one topic a worker asks for.

Fast agents need entries by the hundred, or the round trips cost more than the work; slow ones must not hoard a backlog
while other workers idle. So the window, what may wait for an agent in this process, is 50 ms of the rate at which the
topic's agents have started events in the last second: hundreds for agents that only pass events on, fifteen for three
hundred LLM calls that take a second each, nothing for one agent that thinks for a minute. An agent that stands waiting
is always given something, whatever the window says.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from time import monotonic

__all__ = ["Window"]

# How much of the agents' work to keep ready: longer than a round trip, shorter than anyone would notice.
HORIZON_S = 0.05
# How far back the rate looks. A burst (three hundred idle agents start at once) must not look like a rate.
_MEMORY_S = 1.0
_SAMPLE_S = 0.02


class Window:
    """The adaptive bound for one topic."""

    def __init__(self, most: int, clock: Callable[[], float] = monotonic) -> None:
        self._most = most
        self._clock = clock
        self._rate = 0.0
        self._since = clock()
        self._started = 0
        self.size = 0
        """How many entries may wait for an agent now."""

    def observe(self, started_total: int) -> None:
        """Note how many events the agents have started so far, and resize the window."""
        now = self._clock()
        elapsed = now - self._since
        if elapsed < _SAMPLE_S:
            return
        keep = exp(-elapsed / _MEMORY_S)
        self._rate = self._rate * keep + (started_total - self._started) / elapsed * (1 - keep)
        self.size = min(int(self._rate * HORIZON_S), self._most)
        self._since, self._started = now, started_total

    def room(self, queued: int, idle_agents: int) -> int:
        """Return how many entries to ask for. `queued` entries wait already, and `idle_agents` have nothing to do.

        Zero until a good part of the window is free: asking for one at a time would cost a round trip each.
        """
        room = max(self.size, idle_agents) - queued
        if queued and room < self.size // 2:
            return 0
        return max(room, 0)
