"""When an endpoint says to come back: what its headers and its words mean. Pure; nonsense counts as nothing said."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

# A wrong clock or unit must not keep the fleet from asking for longer: then a call asks anew.
LONGEST_WAIT: Final = timedelta(hours=1)

_PART: Final = re.compile(
    r"(\d{1,12}(?:\.\d{1,12})?)\s*(milliseconds?|ms|days?|d|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)"
)
_LONGEST_TEXT: Final = 64
_DURATION: Final = re.compile(rf"(?:{_PART.pattern}\s*)+")
# As ISO 8601 has it: PT1M30S.
_ISO_DURATION: Final = re.compile(rf"p((?:{_PART.pattern})?)t?((?:{_PART.pattern})*)")
# A header that was sent twice, joined on the way.
_JOINED: Final = re.compile(r"\d{1,12}(?:\s*,\s*\d{1,12})+")
# As .NET writes a duration: 00:01:30.
_CLOCK: Final = re.compile(r"(\d{1,3}):([0-5]\d):([0-5]\d(?:\.\d{1,9})?)", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
# "Please try again in 1.2s", "retry after 20 seconds", "Try again in 6m0s", "in 1 minute and 5 seconds"
_SPOKEN: Final = re.compile(
    rf"(?:again|retry|wait|resets?|available|cool ?down|down)(?:\s+\w+)?\s+(?:in|after|for|of)?\s*(?:about\s+)?"
    rf"((?:{_PART.pattern}\s*(?:(?:and|,)\s+(?=\d))?)+)(?![a-z])"
)
# As LiteLLM names a time, "Limit resets at: 2031-04-01 12:00:00 UTC", and Azure a duration, "in 00:10:00".
_SPOKEN_AT: Final = re.compile(
    r"(?:again|retry|resets?|replenished|available|until)\s*(?:at|in|on|after)?\s*:?\s*"
    r"(\d{4}-\d\d-\d\d[t ]\d\d:\d\d:\d\d(?:\.\d{1,9})? ?(?:utc|gmt|z|[+-]\d\d:?\d\d)|\d{1,3}:\d\d:\d\d)"
)
_SPOKEN_CHINESE: Final = re.compile(r"(\d{1,9}) ?(秒|分钟|小时)(?:钟)?(?:之?后|後)")
_CHINESE_S: Final = {"秒": 1, "分钟": 60, "小时": 3600}
# Seconds or a date; and Azure's, OpenAI's and others' in milliseconds, which come first.
_WAITS: Final = ("retry-after", "x-retry-after", "x-ratelimit-retry-after")
_WAITS_MS: Final = ("retry-after-ms", "x-ms-retry-after-ms", "x-retry-after-ms")
# The drafts of the IETF: `RateLimit: limit=10, remaining=0, reset=5`, later `RateLimit: "default";r=0;t=5`, and in the
# policy `"default";q=100;w=60;qu="requests"`.
_PAIR: Final = re.compile(r"\b(limit|remaining|reset)\s*=\s*(\d{1,15})", re.IGNORECASE | re.ASCII)
_AS_LATER: Final = {"limit": "q", "remaining": "r", "reset": "t"}
_ITEM: Final = re.compile(r'\s*("[^"]{0,64}"|[\w.*/:-]{1,64})((?:\s*;[^,;]{1,64})+)', re.ASCII)
_LONGEST_LIST: Final = 512

# A number so large is a point in time: seconds since 1970 (from 1973 on), or thousandths of one, of those, of those.
_EPOCH_S: Final = 1e8
_THOUSANDTHS: Final = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
_ZONE: Final = re.compile(r"(?<=\d) ?(?:UTC|GMT)$")
# As Go prints a time: 2031-04-01 09:00:00.5 +0000 UTC m=+1.5
_OF_GO: Final = re.compile(r" ?([+-]\d\d:?\d\d)(?: [A-Z]{3,5})?(?: m=\S*)?$")
_MONTH: Final = re.compile(r"(?<=-)(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)(?=-)", re.IGNORECASE)
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """Return how long the endpoint asks to wait.

    It says so by `retry-after-ms`, or `Retry-After` in seconds or as a date.
    """
    for name in _WAITS_MS:
        wait = wait_of(in_milliseconds(headers.get(name)))
        if wait is not None:
            return wait
    return next((wait for name in _WAITS if (wait := wait_of(headers.get(name))) is not None), None)


def wait_of(text: str | None) -> timedelta | None:
    """Return the wait that a value names.

    It is seconds, a duration with units, or a point in time as a number or a date.
    """
    if text is None:
        return None
    text = text.strip()[:_LONGEST_TEXT].strip("\"'").removesuffix(".").strip()
    if _JOINED.fullmatch(text):
        text = max(text.split(","), key=float)
    number = number_of(text)
    if number is not None:
        if number >= _EPOCH_S:
            parts = next((parts for least, parts in _THOUSANDTHS if number >= least), 1)
            number = number / parts - datetime.now(UTC).timestamp()
        return bounded(number)
    lowered = text.lower()
    if _DURATION.fullmatch(lowered) or (_ISO_DURATION.fullmatch(lowered) and _PART.search(lowered)):
        return bounded(_seconds(lowered))
    return _until(text)


def spoken_wait(text: str) -> timedelta | None:
    """Return the wait that an error's message names in words."""
    lowered = text.lower()
    if (found := _SPOKEN.search(lowered)) is not None:
        return bounded(_seconds(found[1]))
    if (found := _SPOKEN_AT.search(lowered)) is not None:
        clock = _CLOCK.fullmatch(found[1])
        return _of_clock(clock) if clock else wait_of(found[1].upper())
    found = _SPOKEN_CHINESE.search(lowered)
    return bounded(int(found[1]) * _CHINESE_S[found[2]]) if found else None


def in_milliseconds(text: str | None) -> str | None:
    """Return a value with milliseconds as its unit. One that has a unit is left as it is."""
    return f"{text} ms" if number_of(text) is not None else text


def exhausted_for(headers: Mapping[str, str]) -> timedelta | None:
    """Return the time without further answers, because a limit is used up. The limit is of requests or of tokens.

    OpenAI says so with every answer: `x-ratelimit-remaining-requests: 0`, `x-ratelimit-reset-requests: 1m30.5s`.
    https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers
    """
    return _longest(headers, unless_left=True)


def named_reset(headers: Mapping[str, str]) -> timedelta | None:
    """Return the wait that a 429 names by its resets. They are of limits used up, or of which it says no more."""
    return _longest(headers, unless_left=False)


def number_of(text: str | None) -> float | None:
    """Return the number that a header holds, if it is one."""
    text = (text or "").strip()[:_LONGEST_TEXT]
    return float(text) if _NUMBER.fullmatch(text) else None


def limit_items(text: str | None) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield the names and parameters of limits in the IETF's two headers."""
    for found in _ITEM.finditer((text or "")[:_LONGEST_LIST]):
        pairs = (part.partition("=") for part in found[2].split(";") if "=" in part)
        yield found[1].strip('"'), {name.strip().lower(): value.strip() for name, _, value in pairs}
    if pairs_of := {_AS_LATER[name.lower()]: value for name, value in _PAIR.findall((text or "")[:_LONGEST_LIST])}:
        yield "", pairs_of


def bounded(seconds: float) -> timedelta:
    """Return these seconds as a wait between zero and one hour."""
    return timedelta(seconds=min(max(seconds, 0.0), LONGEST_WAIT.total_seconds()))


def _longest(headers: Mapping[str, str], *, unless_left: bool) -> timedelta | None:
    waits: list[timedelta] = []
    for name, value in headers.items():
        lowered = name.lower()
        # `x-ratelimit-reset-requests`, `x-ratelimit-reset`, `ratelimit-reset`, `anthropic-ratelimit-tokens-reset`, …
        if "reset" not in lowered or not re.search("rate-?limit", lowered):
            continue
        left = number_of(headers.get(lowered.replace("reset", "remaining")))
        if (left is None and unless_left) or (left is not None and left > 0):
            continue
        wait = wait_of(in_milliseconds(value) if lowered.endswith("-ms") else value)
        if wait:
            waits.append(wait)
    for _, state in limit_items(headers.get("ratelimit")):
        left, wait = number_of(state.get("r")), wait_of(state.get("t"))
        if wait and (not unless_left if left is None else left <= 0):
            waits.append(wait)
    return max(waits, default=None)


def _seconds(text: str) -> float:
    return sum(float(number) * _unit(unit) for number, unit in _PART.findall(text))


def _unit(unit: str) -> float:
    if unit.startswith(("ms", "milli")):
        return 0.001
    return {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0}[unit[0]]


def _of_clock(clock: re.Match[str]) -> timedelta:
    hours, minutes, seconds = map(float, clock.groups())
    return bounded(3600 * hours + 60 * minutes + seconds)


def _as_iso(text: str) -> str:
    """Return a time with its zone, and its month's number, as ISO 8601 has them."""
    in_numbers = _MONTH.sub(lambda month: f"{_MONTHS.index(month[0].lower()) + 1:02}", text)
    return _OF_GO.sub(r"\1", in_numbers) if _OF_GO.search(in_numbers) else _ZONE.sub("Z", in_numbers)


def _until(text: str) -> timedelta | None:
    try:
        at = datetime.fromisoformat(_as_iso(text)) if text[:4].isdigit() else parsedate_to_datetime(text)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return bounded((at - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        # IndexError and TypeError: what the standard library's parser raises for some dates that are none.
        return None
