"""An endpoint's headers state its limits by the minute. What is stale or makes no sense is not believed.

A limit has no unit of its own: the same header is by the minute at one provider and by the day at another. Some name
it. Elsewhere what is left and the time until the limit is whole again tell which: 499 of 500 left and whole again in
0.12 s is a minute that slides. A minute that is begun anew shows when answers use much up and name the same end.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from consumers.generation.rate_limits import exhausted_for
from consumers.generation.stated_limits import Kind, Statement, statements

# So many answers in a row have to agree.
_ALIKE: Final = 3
# Of a limit that so few calls fill, so many answers are awaited that it must have refused some, were it true.
_FEW_CALLS: Final = 10
# Where a minute begins anew, one that slides can see twice the limit.
_AT_MOST: Final = 2
# Ends of one window, as answers name them, lie so near each other.
_SAME_END_S: Final = 1.5
# So much used up would move the end of a minute that slides by twice as much.
_MUCH: Final = 0.05
# A window is a minute if one of its answers, a moment after its begin, names almost a minute, and none names more.
_ALMOST_S: Final = 50.0
_MINUTE_S: Final = 61.0
_WINDOW_S: Final = 60.0


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
    """Return the limits by the minute that an answer states by itself."""
    requests, tokens = (
        next((one.limit for one in statements(headers, kind) if one.is_by_the_minute), None)
        for kind in ("requests", "tokens")
    )
    return Limits(requests, tokens)


@dataclass
class _Windows:
    """It watches whether a limit's window begins anew, and how long it is. Answers of one window name the same end.

    Attributes:
        begin_anew: whether much was used up within a window without moving its end.
        limit: of a minute that begins anew, as far as the answers show that; else None.
    """

    begin_anew: bool = field(default=False, init=False)
    limit: float | None = field(default=None, init=False)
    _ends_at: float = field(default=float("-inf"), init=False)
    _longest_s: float = field(default=0.0, init=False)
    _most_left: float = field(default=0.0, init=False)

    def note(self, stated: Statement, at: float) -> None:
        """Note what an answer that came at this time states."""
        if not stated.makes_sense or stated.left is None or stated.whole_in_s is None:
            return
        if abs(at + stated.whole_in_s - self._ends_at) > _SAME_END_S:
            self._ends_at, self._longest_s, self._most_left = at + stated.whole_in_s, 0.0, stated.left
        self._longest_s = max(self._longest_s, stated.whole_in_s)
        self._most_left = max(self._most_left, stated.left)
        if self._most_left - stated.left >= _MUCH * stated.limit:
            self.begin_anew = True
            if self._longest_s >= _ALMOST_S:
                self.limit = stated.limit
        if stated.whole_in_s > _MINUTE_S:
            self.limit = None


@dataclass
class _Recent:
    """It adds up what the endpoint has answered in the last minute, in requests or in tokens."""

    total: float = field(default=0.0, init=False)
    _answers: deque[tuple[float, float]] = field(default_factory=deque, init=False)

    def note(self, amount: float, at: float) -> None:
        """Note an answer."""
        self._answers.append((at, amount))
        self.total += amount
        while self._answers[0][0] <= at - _WINDOW_S:
            self.total -= self._answers.popleft()[1]

    @property
    def each(self) -> float:
        """Return what an answer comes to, on average."""
        return self.total / len(self._answers) if self._answers else 0.0


@dataclass
class _Known:
    """It keeps what answers have stated of one kind of limit.

    Attributes:
        recent: what was answered; a limit that it is far beyond is stale.
    """

    recent: _Recent = field(default_factory=_Recent, init=False)
    limit: float | None = field(default=None, init=False)
    _stated: float | None = field(default=None, init=False)
    _alike: int = field(default=0, init=False)
    _windows: _Windows = field(default_factory=_Windows, init=False)

    def note(self, found: list[Statement], at: float) -> None:
        """Note what an answer states. Answers have to agree: one alone may be a mistake."""
        if found:
            self._windows.note(found[0], at)
        by_the_minute = [one for one in found if one.is_by_the_minute]
        if self._windows.begin_anew:
            by_the_minute = [one for one in by_the_minute if one.window_s is not None]
        stated = by_the_minute[0].limit if by_the_minute else self._windows.limit
        self._alike = self._alike + 1 if stated == self._stated else 1
        self._stated = stated
        if stated is not None and self._alike >= self._needed(stated) and self.recent.total <= _AT_MOST * stated:
            self.limit = stated

    def _needed(self, stated: float) -> float:
        calls = stated / self.recent.each if self.recent.each else _FEW_CALLS
        return _ALIKE if calls >= _FEW_CALLS else max(_ALIKE, _AT_MOST * calls + 1)


_KINDS: Final[tuple[Kind, Kind]] = ("requests", "tokens")


@dataclass
class Allowance:
    """One endpoint's answers have said this of its limits.

    Attributes:
        clock: seconds that only move forward.
    """

    clock: Callable[[], float] = time.perf_counter
    _known: dict[Kind, _Known] = field(default_factory=lambda: {kind: _Known() for kind in _KINDS}, init=False)
    _empty: int = field(default=0, init=False)
    _emptied_at: float = field(default=float("-inf"), init=False)

    @property
    def limits(self) -> Limits:
        """Return the limits that the latest answers agree on."""
        return Limits(self._known["requests"].limit, self._known["tokens"].limit)

    def answered(self, headers: Mapping[str, str], began: float, at: float | None = None) -> timedelta | None:
        """Note a call's answer; return how long the endpoint takes no further one.

        One that says again and again that nothing is left, and answers the next call, repeats what is stale. When it
        was right after all it answers 429, and the gate hears of that.

        Args:
            headers: the answer's.
            began: when the call began.
            at: when the headers came; None: now.
        """
        at = self.clock() if at is None else at
        self._known["requests"].recent.note(1.0, at)
        for kind, known in self._known.items():
            known.note(list(statements(headers, kind)), at)
        wait = exhausted_for(headers)
        if wait is None:
            self._empty = 0
        elif began > self._emptied_at:
            # Those that were under way with the one that emptied it say so too, and tell nothing new.
            self._empty += 1
            self._emptied_at = self.clock()
        return wait if self._empty <= _ALIKE else None

    def used(self, tokens: int) -> None:
        """Note what an answer has cost."""
        self._known["tokens"].recent.note(float(tokens), self.clock())

    def refused(self) -> None:
        """Note a 429: what the endpoint says of its limits is true."""
        self._empty = 0
