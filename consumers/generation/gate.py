"""The fleet shares a gate before the LLM endpoint. While it is closed no call is made, and no attempt is spent.

open ──an answer says when to come back──▶ closed ──that time comes, or an operator opens it──▶ open

The worker that is told so stops at once, and writes it to `llm_gate` in the transaction that records the call. Every
begin of an attempt reads that row, so the others stop with their next one; calls already under way are not taken back.
The time only moves forward, unless an operator opens the gate: so whoever waits asks again every half minute. It
travels as a duration and is kept by the clock of Postgres: hosts need not agree on one.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import aiosql

from infra.errors import DependencyDown
from infra.postgres import Connection

_queries = aiosql.from_path(Path(__file__).with_name("gate.sql"), "asyncpg")

# When the gate opens, workers come back one after the other over a tenth of the wait, within these bounds.
_SPREAD = 0.1
_SHORTEST_SPREAD_S = 0.2
_LONGEST_SPREAD_S = 5.0

# A gate that the fleet finds open this long before its time was opened by an operator.
_SOON_S = 1.0

# Shorter: an operator who opens the gate waits less; longer: fewer questions to Postgres while it is closed.
_ASK_AGAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Closing:
    """The fleet must hear of this closing. `until` is by this process's clock and means nothing to others."""

    wait: timedelta
    reason: str
    until: float


@dataclass
class Gate:
    """This process keeps its own copy of the gate's state.

    Attributes:
        endpoint: what the gate stands before, as the fleet names it.
        clock: seconds that only move forward.
    """

    endpoint: str
    clock: Callable[[], float] = time.monotonic
    _closed_until: float = field(default=0.0, init=False)
    _known_until: float = field(default=0.0, init=False)
    _heard: float = field(default=0.0, init=False)
    _reason: str = field(default="", init=False)

    def close(self, wait: timedelta | None, reason: str) -> None:
        """Close the gate because this process was told so; without a wait, nothing changes."""
        until = self.clock() + wait.total_seconds() if wait else 0.0
        if until > self._closed_until:
            self._closed_until, self._reason, self._heard = until, reason, self.clock()

    def learn(self, wait: timedelta | None) -> None:
        """Note the fleet's answer: the time that the gate stays closed, or none.

        That it is open counts only when this process has asked again. What was read while another transaction of this
        process was about to tell of a closing says "open" too, and knows no better.
        """
        now = self.clock()
        until = now + wait.total_seconds() if wait else 0.0
        if self._asks_again(now) and self._closed_until <= self._known_until:
            self._closed_until = self._known_until = until
        elif wait:
            self._known_until = max(self._known_until, until)
            self._closed_until = max(self._closed_until, until)
        self._heard = now

    def _asks_again(self, now: float) -> bool:
        return now - self._heard >= _ASK_AGAIN_S

    def open_early(self) -> bool:
        """Open it because the fleet's is open; return whether that is news.

        One that opens within a moment anyway keeps the moment that it would open at: workers come back one by one.
        """
        if self._closed_until - self.clock() <= _SOON_S or self._closed_until > self._known_until:
            return False
        self._closed_until = self._known_until = 0.0
        return True

    def untold(self) -> Closing | None:
        """Return what the fleet has not heard of yet."""
        wait_s = self._closed_until - self.clock()
        if wait_s <= 0 or self._closed_until <= self._known_until:
            return None
        return Closing(timedelta(seconds=wait_s), self._reason, self._closed_until)

    def told(self, closing: Closing | None) -> None:
        """Note that the fleet can read it."""
        if closing is not None:
            self._known_until = max(self._known_until, closing.until)
            self._heard = self.clock()

    @property
    def is_closed(self) -> bool:
        """Return whether it is, as far as this process knows."""
        return self._closed_until > self.clock()

    def check_known(self) -> None:
        """Pass if the gate is open, or if the fleet must be asked again. `check` then knows the answer.

        Raises:
            DependencyDown: as `check`.
        """
        if not self._asks_again(self.clock()):
            self.check()

    def check(self) -> None:
        """Pass if the gate is open.

        Raises:
            DependencyDown: it is closed. `retry_after` ends when it is time to ask again, or a random little while
                after the gate opens, so that the fleet does not come back all at once.
        """
        wait_s = self._closed_until - self.clock()
        if wait_s > 0:
            spread_s = min(max(_SPREAD * wait_s, _SHORTEST_SPREAD_S), _LONGEST_SPREAD_S)
            raise DependencyDown(
                "llm",
                f"the LLM endpoint takes no calls for {wait_s:.1f} s more, as it has said (table llm_gate)",
                retry_after=timedelta(seconds=min(wait_s, _ASK_AGAIN_S) + random.uniform(0, spread_s)),
            )


@dataclass(frozen=True, slots=True)
class FleetGate:
    """One endpoint's gate. `closed_for` is zero when it is open; the times are by Postgres's clock."""

    endpoint: str
    closed_until: datetime
    closed_for: timedelta
    reason: str


async def gates(connection: Connection) -> list[FleetGate]:
    """Return every gate that was ever closed."""
    return [FleetGate(**row) async for row in _queries.gates(connection)]


async def open_gates(connection: Connection, endpoints: Sequence[str]) -> list[str]:
    """Open these gates in the caller's transaction; return those that were closed.

    Each generation worker looks at the controls every second, and asks again at once; see its `obey_gates`.
    """
    # The rows are the UPDATE's own, so they are read to the end before anything else happens.
    return [row["endpoint"] async for row in _queries.open_gates(connection, endpoints=list(endpoints))]


async def close_gate(connection: Connection, endpoint: str, lasts: timedelta, reason: str) -> None:
    """Close a gate in the caller's transaction. Every begin of an attempt reads it, so it counts from the next one."""
    await _queries.close_gate(connection, endpoint=endpoint, lasts=lasts, reason=reason)
