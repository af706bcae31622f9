"""A strict provider answers so many requests and tokens within any minute, and no more.

Every answer states the limits as OpenAI's do. The minute may be a shorter time, so that a test need not wait for one.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

_LONGEST_BACK_OFF_S: Final = 1.0


@dataclass
class Limiter:
    """A provider allows one account so much.

    Attributes:
        requests: answers within a minute at most.
        tokens: of prompts and answers, within a minute at most.
        minute_s: how long a minute takes here.
        clock: seconds that only move forward.
        refused: calls beyond the limits.
        used: the requests and tokens of the minute that ends now.
    """

    requests: int
    tokens: int
    minute_s: float = 60.0
    clock: Callable[[], float] = time.monotonic
    refused: int = field(default=0, init=False)
    _calls: deque[tuple[float, int]] = field(default_factory=deque, init=False)
    _used: int = field(default=0, init=False)

    def take(self, tokens: int) -> bool:
        """Count a call of so many tokens; return whether it is within the limits."""
        self._forget()
        if len(self._calls) >= self.requests or self._used + tokens > self.tokens:
            self.refused += 1
            return False
        self._calls.append((self.clock(), tokens))
        self._used += tokens
        return True

    def headers(self) -> Mapping[str, str]:
        """Return the limits and what is left of them, as every answer states them."""
        self._forget()
        stated: dict[str, str] = {}
        for what, limit, used in (("requests", self.requests, len(self._calls)), ("tokens", self.tokens, self._used)):
            stated[f"x-ratelimit-limit-{what}"] = str(limit)
            stated[f"x-ratelimit-remaining-{what}"] = str(limit - used)
            stated[f"x-ratelimit-reset-{what}"] = f"{1000 * self.minute_s * used / limit:.0f}ms"
        return stated

    def back_off_s(self) -> float:
        """Return how long a refused caller should wait: until the oldest call counts no more."""
        oldest = self._calls[0][0] if self._calls else self.clock()
        return min(max(oldest + self.minute_s - self.clock(), 0.05), _LONGEST_BACK_OFF_S)

    def _forget(self) -> None:
        while self._calls and self._calls[0][0] <= self.clock() - self.minute_s:
            _, tokens = self._calls.popleft()
            self._used -= tokens
