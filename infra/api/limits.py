"""Each organization has limits on its requests a minute, and on its event streams.

Requests are counted in Postgres, for all API processes together, and each answer says what is left.

An open stream costs next to nothing while it waits; opening one costs a look at the database. So a client that opens
and drops them as fast as it can is answered from memory, before anything else is done for it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any, Final

from infra.api.problems import Problem
from infra.errors import Refused
from infra.postgres import Database
from streams.jobs.intake_limits import CODE, take, too_fast

_TEXT: Final = {"schema": {"type": "string"}}
HEADERS: Final[Mapping[str, Any]] = {
    "headers": {
        "RateLimit-Policy": {"description": 'Requests that may be made, e.g. `"requests";q=600;w=60`.', **_TEXT},
        "RateLimit": {"description": 'What is left, e.g. `"requests";r=421;t=18`.', **_TEXT},
    }
}
"""How a route's OpenAPI entry describes them, for the status of its answer."""


@dataclass(frozen=True, slots=True)
class Limited:
    """The requests that an organization may make, in all API processes together."""

    database: Database

    async def take(self, organization_id: str) -> dict[str, str]:
        """Count one request; return the header fields of its answer.

        Raises:
            Problem: the organization has made as many as it may.
            DependencyDown: Postgres is away.
        """
        allowance = await take(self.database, organization_id)
        if not allowance.granted:
            raise Problem(429, CODE, str(too_fast(organization_id, allowance.per_minute)), headers=allowance.headers)
        return allowance.headers


_MOST_REMEMBERED = 1_000
_RETRY_AFTER_S = 5.0


class StreamLimits:
    """The limits on the event streams of each organization at this process.

    Args:
        at_once: streams open at a time.
        per_second: streams opened a second, on average.
        burst: streams opened at once, after a quiet time: a page with many of them, or a reconnect of all users.
        clock: seconds that only go forward.
    """

    def __init__(
        self, *, at_once: int = 200, per_second: float = 10, burst: int = 50, clock: Callable[[], float] = monotonic
    ) -> None:
        self._at_once = at_once
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._open: Counter[str] = Counter()
        self._left: dict[str, tuple[float, float]] = {}

    def admit(self, organization_id: str) -> None:
        """Count an attempt to open a stream.

        Raises:
            Refused: the organization has too many open, or opens them too fast.
        """
        if self._open[organization_id] >= self._at_once:
            raise _too_many(f"{self._at_once} streams are open; close some, or poll", _RETRY_AFTER_S)
        now = self._clock()
        left, since = self._left.get(organization_id, (float(self._burst), now))
        left = min(left + (now - since) * self._per_second, self._burst)
        if left < 1:
            raise _too_many("streams are opened too fast; keep each one open", (1 - left) / self._per_second)
        if len(self._left) > _MOST_REMEMBERED:
            self._forget_rested(now)
        self._left[organization_id] = (left - 1, now)

    @contextmanager
    def held(self, organization_id: str) -> Iterator[None]:
        """Count a stream as open until the block ends."""
        self._open[organization_id] += 1
        try:
            yield
        finally:
            self._open[organization_id] -= 1
            if not self._open[organization_id]:
                del self._open[organization_id]

    def _forget_rested(self, now: float) -> None:
        """Forget the organizations that may open as many again as one that never did."""
        rested = now - self._burst / self._per_second
        self._left = {name: state for name, state in self._left.items() if state[1] > rested}


def _too_many(why: str, retry_after_s: float) -> Refused:
    return Refused("too_many_streams", why, retry_after=timedelta(seconds=retry_after_s))
