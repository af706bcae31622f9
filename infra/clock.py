"""The time, as a port, so that tests set it instead of sleeping through it."""

import math
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Final, Protocol

_REREAD_S: Final = 1.0


class Clock(Protocol):
    """Whoever can say what time it is."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        return datetime.now(UTC)


class ServerClock:
    """The clock of a server that the whole fleet shares, so that hosts need not agree on the time.

    What one process writes down another compares with its own time: when a retry is due, in which month a job was
    accepted, since when a run stands still. A host whose clock is wrong, or steps, must not decide that. The server is
    asked now and then, whenever somebody talks to it anyway; between two answers, and while it is away, time goes on by
    the monotonic clock, which no step moves. Before the first answer it is the machine's clock.
    """

    def __init__(self) -> None:
        self._answer = datetime.min.replace(tzinfo=UTC)
        self._answered = -math.inf

    @property
    def stale(self) -> bool:
        """Whether the server should be asked again."""
        return monotonic() - self._answered > _REREAD_S

    def learn(self, answer: datetime) -> None:
        """Go by the server's answer, which has just come. It is late by its way here, never early."""
        self._answer, self._answered = answer, monotonic()

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        if math.isinf(self._answered):
            return datetime.now(UTC)
        return self._answer + timedelta(seconds=monotonic() - self._answered)
