"""An endpoint's headers state its limits by the minute. Pure; what is stale or makes no sense is not believed.

A limit has no unit of its own: the same header is by the minute at one provider and by the day at another. What is left
and the time until the limit is whole again tell which: 499 of 500 left and whole again in 0.12 s is a minute.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from consumers.generation.rate_limits import exhausted_for, number_of, wait_of

_MINUTE_S: Final = 60.0
# Half a second's rounding either way, when much is used up.
_NEAR: Final = 0.25
# So many answers in a row have to agree.
_ALIKE: Final = 3
_LARGEST: Final = 1e12


@dataclass(frozen=True, slots=True)
class Limits:
    """An endpoint takes so much by the minute. None: no limit is known."""

    requests: float | None = None
    tokens: float | None = None

    @property
    def is_known(self) -> bool:
        """Return whether there is any."""
        return self.requests is not None or self.tokens is not None

    def or_else(self, others: "Limits") -> "Limits":
        """Return these limits, with the others' where these have none."""
        return Limits(
            others.requests if self.requests is None else self.requests,
            others.tokens if self.tokens is None else self.tokens,
        )


def stated_limits(headers: Mapping[str, str]) -> Limits:
    """Return the limits that an answer states, if they are by the minute."""
    return Limits(_by_the_minute(headers, "requests"), _by_the_minute(headers, "tokens"))


@dataclass
class Allowance:
    """One endpoint's answers have said this of its limits.

    Attributes:
        clock: seconds that only move forward.
        limits: those that the latest answers agree on.
    """

    clock: Callable[[], float] = time.perf_counter
    limits: Limits = field(default=Limits(), init=False)
    _stated: Limits = field(default=Limits(), init=False)
    _alike: int = field(default=0, init=False)
    _empty: int = field(default=0, init=False)
    _emptied_at: float = field(default=float("-inf"), init=False)

    def answered(self, headers: Mapping[str, str], began: float) -> timedelta | None:
        """Note a call's answer; return how long the endpoint takes no further one.

        One that says again and again that nothing is left, and answers the next call, repeats what is stale. When it
        was right after all it answers 429, and the gate hears of that.
        """
        stated = stated_limits(headers)
        self._alike = self._alike + 1 if stated == self._stated else 1
        self._stated = stated
        if stated.is_known and self._alike >= _ALIKE:
            self.limits = stated
        wait = exhausted_for(headers)
        if wait is None:
            self._empty = 0
        elif began > self._emptied_at:
            # Those that were under way with the one that emptied it say so too, and tell nothing new.
            self._empty += 1
            self._emptied_at = self.clock()
        return wait if self._empty <= _ALIKE else None

    def refused(self) -> None:
        """Note a 429: what the endpoint says of its limits is true."""
        self._empty = 0


def _by_the_minute(headers: Mapping[str, str], what: str) -> float | None:
    limit = number_of(headers.get(f"x-ratelimit-limit-{what}"))
    left = number_of(headers.get(f"x-ratelimit-remaining-{what}"))
    whole_in = wait_of(headers.get(f"x-ratelimit-reset-{what}"))
    if limit is None or left is None or whole_in is None:
        return None
    if not (math.isfinite(limit) and 1 <= limit <= _LARGEST and 0 < left < limit):
        return None
    window_s = whole_in.total_seconds() * limit / (limit - left)
    return limit if abs(window_s - _MINUTE_S) <= _NEAR * _MINUTE_S else None
