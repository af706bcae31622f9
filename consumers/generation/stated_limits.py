"""The limits that an answer's headers state, in the dialects of providers and gateways. Pure; nonsense states nothing.

| whose | headers |
| --- | --- |
| OpenAI, and most others | `x-ratelimit-limit-requests`, `-remaining-requests`, `-reset-requests`; the same of tokens |
| Azure, GitHub | the same, and `x-ratelimit-renewalperiod-requests: 60` |
| Cerebras, Mistral | the unit in the name: `x-ratelimit-limit-tokens-minute`, `x-ratelimit-limit-req-minute` |
| Anthropic | `anthropic-ratelimit-requests-limit`, `-remaining`, `-reset` |
| Together, gateways | `x-ratelimit-limit`, `ratelimit-limit: 100, 100;w=60`; `x-tokenlimit-limit` |
| IETF | `ratelimit-policy: "a";q=100;w=60` and `ratelimit: "a";r=50;t=30`, or `limit=100, remaining=50, reset=30` |
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from consumers.generation.rate_limits import limit_items, number_of, wait_of

Kind: TypeAlias = Literal["requests", "tokens"]

_MINUTE_S: Final = 60.0
# Half a second's rounding either way, when much is used up.
_NEAR: Final = 0.25
_LARGEST: Final = 1e12

# The names of limit, what is left, and reset; `{}` is one of the three words.
_NAMES: Final[Mapping[Kind, tuple[str, ...]]] = {
    "requests": (
        "x-ratelimit-{}-requests",
        "x-ratelimit-{}-requests-minute",
        "x-ratelimit-{}-req-minute",
        "anthropic-ratelimit-requests-{}",
        "x-ratelimit-{}",
        "x-rate-limit-{}",
        "ratelimit-{}",
    ),
    "tokens": (
        "x-ratelimit-{}-tokens",
        "x-ratelimit-{}-tokens-minute",
        "anthropic-ratelimit-tokens-{}",
        "x-tokenlimit-{}",
        "x-ratelimitbysize-{}-minute",
    ),
}
_BY_THE_MINUTE: Final = "-minute"
_PERIOD: Final = "x-ratelimit-renewalperiod-{}"
# `100;w=60`, and the structured `"default";q=100;w=60;qu="requests"`.
_POLICY: Final = re.compile(r"\s*(\d{1,15})\s*;\s*w\s*=\s*(\d{1,9})\s*(?:;.*)?", re.IGNORECASE | re.ASCII)
_LONGEST_TEXT: Final = 512


@dataclass(frozen=True, slots=True)
class Statement:
    """A limit, as an answer states it.

    Attributes:
        limit: requests or tokens in a window.
        left: what is left of it; None: it does not say.
        whole_in_s: seconds until all is left again.
        window_s: the window, where the headers name it.
    """

    limit: float
    left: float | None
    whole_in_s: float | None
    window_s: float | None

    @property
    def makes_sense(self) -> bool:
        """Return whether an endpoint that answers may mean it."""
        is_limit = math.isfinite(self.limit) and 1 <= self.limit <= _LARGEST
        return is_limit and (self.left is None or 0 < self.left <= self.limit)

    @property
    def is_by_the_minute(self) -> bool:
        """Return whether it says so, in words or by its times."""
        if not self.makes_sense:
            return False
        if self.window_s is not None:
            return self.window_s == _MINUTE_S
        if self.left is None or self.whole_in_s is None or self.left >= self.limit:
            return False
        window_s = self.whole_in_s * self.limit / (self.limit - self.left)
        return abs(window_s - _MINUTE_S) <= _NEAR * _MINUTE_S


def statements(headers: Mapping[str, str], kind: Kind) -> Iterator[Statement]:
    """Yield what headers state of one kind of limit, in each dialect."""
    for name in _NAMES[kind]:
        text = headers.get(name.format("limit"))
        found = _limit_of(text)
        if found is None:
            continue
        limit, window_s = found
        if name.endswith(_BY_THE_MINUTE):
            window_s = _MINUTE_S
        elif window_s is None and name == _NAMES[kind][0]:
            window_s = number_of(headers.get(_PERIOD.format(kind)))
        elif window_s is None:
            window_s = _policy_of(headers.get("ratelimit-policy"), limit)
        reset = wait_of(headers.get(name.format("reset")))
        yield Statement(
            limit,
            number_of(headers.get(name.format("remaining"))),
            None if reset is None else reset.total_seconds(),
            window_s,
        )
    yield from _structured(headers, kind)


def _limit_of(text: str | None) -> tuple[float, float | None] | None:
    """Return a limit and its window, of `100`, `100;w=60` or `100, 100;w=60, 5000;w=3600`."""
    first, *_ = items = (text or "")[:_LONGEST_TEXT].split(",")
    policy = _POLICY.fullmatch(first)
    limit = float(policy[1]) if policy else number_of(first)
    return None if limit is None else (limit, _window_of(items, limit))


def _policy_of(text: str | None, limit: float) -> float | None:
    return _window_of((text or "")[:_LONGEST_TEXT].split(","), limit)


def _window_of(items: list[str], limit: float) -> float | None:
    policies = [found for item in items if (found := _POLICY.fullmatch(item))]
    return next((float(found[2]) for found in policies if float(found[1]) == limit), None)


def _structured(headers: Mapping[str, str], kind: Kind) -> Iterator[Statement]:
    states = dict(limit_items(headers.get("ratelimit")))
    if kind == "requests" and (limit := number_of((state := states.get("", {})).get("q"))) is not None:
        left, reset = number_of(state.get("r")), number_of(state.get("t"))
        yield Statement(limit, left, reset, _policy_of(headers.get("ratelimit-policy"), limit))
    for name, policy in limit_items(headers.get("ratelimit-policy")):
        limit, window_s = number_of(policy.get("q")), number_of(policy.get("w"))
        counted = (policy.get("qu", "").strip('"') or ("tokens" if "token" in name.lower() else "requests")).lower()
        if limit is not None and window_s is not None and counted == kind:
            state = states.get(name, {})
            yield Statement(limit, number_of(state.get("r")), number_of(state.get("t")), window_s)
