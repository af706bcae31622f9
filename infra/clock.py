"""The clock is a port, so tests set it instead of sleeping. Times that others send are a type."""

import math
import re
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Annotated, Final, Protocol, TypeAlias

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, WithJsonSchema

_REREAD_S: Final = 1.0

# Far from the ends of what Python and Postgres can say, so that no sum and no other time zone leads over them.
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
# What a JSON Schema can say of it for a time in any zone: the first and the last year have days that are others in UTC.
_YEARS: Final = r"^(197[1-9]|19[89]\d|20\d\d|21[0-8]\d|219[0-8])-"
_ZONE: Final = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,12})?)?) ?(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)",
    re.IGNORECASE | re.ASCII,
)
_LEAP_SECOND: Final = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d):60([.,]\d{1,9})?([Zz]|[+-]\d\d:?\d\d)?")


def floor(moment: datetime, length: timedelta) -> datetime:
    """Return when the piece of time begins in which a moment lies. Pieces begin in 1970."""
    return moment - (moment - _EARLIEST) % length


def is_sane(moment: datetime) -> bool:
    """Return true if an aware time lies in the years that this system takes."""
    return _EARLIEST <= moment < _LATEST


def _written(value: object) -> object:
    """Refuse what Pydantic would read as seconds since 1970: `until: 0` is no time."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, str) and _DATE.match(value := value.strip()):
        value = _with_zone(value)
        return after_leap_second(value) or value
    raise ValueError("must be a time such as 2031-04-03T08:00:00Z")


def _with_zone(text: str) -> str:
    """Return a time whose zone is written as RFC 3339 has it.

    Postgres writes `+00`, others a space before the zone, or its name.
    """
    found = _ZONE.fullmatch(text)
    if found is None:
        return text
    zone = found[2] if found[2][0] in "+-" else "Z"
    return found[1] + (f"{zone}:00" if len(zone) == len("+00") else zone)


def after_leap_second(text: str) -> datetime | None:
    """Return a time in a leap second as the second after it; else None.

    23:59:60Z becomes 00:00:00Z of the next day, as POSIX counts.

    Source: https://www.rfc-editor.org/rfc/rfc3339#section-5.7

    Raises:
        ValueError: there is no leap second then: one is the last of a month in UTC.
    """
    found = _LEAP_SECOND.fullmatch(text)
    if found is None:
        return None
    minute, fraction, zone = found.groups(default="")
    try:
        moment = datetime.fromisoformat(f"{minute}:59{zone.upper()}") + timedelta(seconds=1)
        begins = moment.astimezone(UTC) if zone else moment
    except OverflowError as error:
        raise ValueError("is not between the years 1970 and 2199; check the sender's clock") from error
    if (begins.day, begins.hour, begins.minute) != (1, 0, 0):
        raise ValueError("has the second 60, which only the last minute of a month in UTC can have")
    return moment + timedelta(seconds=float(f"0.{fraction[1:] or 0}"))


def _in_utc(moment: datetime) -> datetime:
    if not is_sane(moment):
        raise ValueError("is not between the years 1970 and 2199; check the sender's clock")
    return moment.astimezone(UTC)


# A time that somebody sends, at every edge: HTTP, stream, client, commands and stored rows. It has a time zone, lies in
# sane years, and is in UTC from here on: Python takes offsets of a day, and Postgres none of 16 hours or more.
Moment: TypeAlias = Annotated[
    AwareDatetime,
    BeforeValidator(_written),
    AfterValidator(_in_utc),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": _YEARS}),
]


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
    """A clock that follows the server's, so hosts need not agree on the time.

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
        """Return true if the server should be asked again."""
        return monotonic() - self._answered > _REREAD_S

    def learn(self, answer: datetime) -> None:
        """Go by the server's answer, which has just come. It is late by its way here, never early."""
        self._answer, self._answered = answer, monotonic()

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        if math.isinf(self._answered):
            return datetime.now(UTC)
        return self._answer + timedelta(seconds=monotonic() - self._answered)
