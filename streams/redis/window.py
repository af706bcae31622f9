"""How many entries of one topic a worker asks for.

Fast agents need entries by the hundred, or the round trips cost more than the work; slow ones must not hoard a backlog
while other workers idle. So the window, what may wait for an agent in this process, is what the topic's agents
started in the last 50 ms: some dozens for agents that start a thousand events a second, nothing for one that
thinks for a minute. An agent that stands waiting is always given something, whatever the window says.
"""

from __future__ import annotations

from time import monotonic

__all__ = ["Window"]

HORIZON_S = 0.05


class Window:
    """The adaptive bound for one topic."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._since = monotonic()
        self._started = 0

    @property
    def size(self) -> int:
        """How many entries may wait for an agent now."""
        return self._size

    def observe(self, started_total: int) -> None:
        """Note how many events the agents have started so far; resizes the window every 50 ms."""
        now = monotonic()
        elapsed = now - self._since
        if elapsed < HORIZON_S:
            return
        rate = (started_total - self._started) / elapsed
        self._size = min(int(rate * HORIZON_S * 2), self._most) if elapsed < HORIZON_S * 20 else 0
        self._since, self._started = now, started_total

    def room(self, queued: int, idle_agents: int) -> int:
        """How many entries to ask for, when `queued` wait already and `idle_agents` have nothing to do.

        Zero until a good part of the window is free: asking for one at a time would cost a round trip each.
        """
        room = max(self._size, idle_agents) - queued
        if queued and room < self._size // 2:
            return 0
        return max(room, 0)
