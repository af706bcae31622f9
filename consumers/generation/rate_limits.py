"""When an endpoint says to come back: what its headers mean. Pure; nonsense counts as nothing said."""

import math
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final, Protocol

# Longer than any endpoint means; a wrong clock or unit there must not put a job off for a year.
_LONGEST_WAIT = timedelta(days=1)
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|h|m|s))+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class Headers(Protocol):
    """The headers of an answer."""

    def get(self, key: str, /) -> str | None:
        """Return the header's value, whatever the case of its name."""
        ...


def retry_after(headers: Headers) -> timedelta | None:
    """Return how long the endpoint asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _bounded(milliseconds / 1000)
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None:
        return _bounded(seconds)
    try:
        at = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return _bounded(((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())


def exhausted_for(headers: Headers) -> timedelta | None:
    """Return how long no further call will be answered, because the limit of requests or of tokens is used up.

    OpenAI says so with every answer: `x-ratelimit-remaining-requests: 0`, `x-ratelimit-reset-requests: 1m30.5s`.
    https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers
    """
    resets = [
        _duration(headers.get(f"x-ratelimit-reset-{limit}"))
        for limit in ("requests", "tokens")
        if _number(headers.get(f"x-ratelimit-remaining-{limit}")) == 0
    ]
    return max((reset for reset in resets if reset), default=None)


def _duration(text: str | None) -> timedelta | None:
    # A number without a unit may be a point in time, so it says nothing.
    if text is None or not _DURATION.fullmatch(text):
        return None
    return _bounded(sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text)))


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _bounded(seconds: float) -> timedelta:
    return timedelta(seconds=min(max(seconds, 0.0), _LONGEST_WAIT.total_seconds()))
