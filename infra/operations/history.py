"""The history of the jobs is read from their counts by time.

Postgres keeps them, whatever becomes of the broker.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Final

import aiosql

from infra.clock import floor
from infra.postgres import Connection

_queries = aiosql.from_path(Path(__file__).with_name("overview.sql"), "asyncpg")

PERIODS: Final = {"1 h": timedelta(hours=1), "24 h": timedelta(hours=24), "30 d": timedelta(days=30)}
_DAYS: Final = 90
_FINE: Final = timedelta(minutes=5)
_HALF_HOUR: Final = timedelta(minutes=30)
_UNTIMED: Final = 999


@dataclass(frozen=True, slots=True)
class Period:
    """The jobs of the past hour, day or month.

    Attributes:
        name: how long it is, as `24 h`.
        asked: jobs that were asked for in it.
        completed, failed, cancelled: jobs that ended in it. A refused one has failed.
        per_minute: those that ended, on average.
        p50_s, p95_s: seconds from request to completion, within a tenth; without replays and jobs that were to wait.
            None: nothing has completed.
    """

    name: str
    asked: int
    completed: int
    failed: int
    cancelled: int
    per_minute: float
    p50_s: float | None
    p95_s: float | None


@dataclass(frozen=True, slots=True)
class Bar:
    """A chart has a bar for each of its times."""

    at: datetime
    asked: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def ended(self) -> int:
        """Return how many jobs ended."""
        return self.completed + self.failed + self.cancelled


@dataclass(frozen=True, slots=True)
class History:
    """Jobs by time. `day` has a bar for each half hour of 24 hours, `days` one for each day (UTC) of 90."""

    periods: Sequence[Period]
    day: Sequence[Bar]
    days: Sequence[Bar]


async def read_history(connection: Connection, now: datetime) -> History:
    """Return the jobs by time. Three statements, of some thousand rows each."""
    hour, day, month = (floor(now - length, _FINE) for length in PERIODS.values())
    rows = [row async for row in _queries.periods(connection, hour=hour, day=day, month=month, now=now)]
    periods = []
    for (name, length), column in zip(PERIODS.items(), ("hour", "day", "month"), strict=True):
        counted = {(row["state"], row["took"]): row[column] for row in rows}
        periods.append(_period(name, length, counted))
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first_day = midnight - timedelta(days=_DAYS - 1)
    half_hour = now - (now - midnight) % _HALF_HOUR - timedelta(hours=24) + _HALF_HOUR
    return History(
        periods,
        await _bars(connection, half_hour, now, _HALF_HOUR),
        await _bars(connection, first_day, now, timedelta(days=1)),
    )


async def _bars(connection: Connection, since: datetime, now: datetime, width: timedelta) -> Sequence[Bar]:
    found = {row["at"]: Bar(**row) async for row in _queries.bars(connection, since=since, now=now, width=width)}
    times = [since + number * width for number in range((now - since) // width + 1)]
    return [found.get(at) or Bar(at) for at in times]


def _period(name: str, length: timedelta, counted: Mapping[tuple[str, int], int]) -> Period:
    def total(wanted: str) -> int:
        return sum(jobs for (state, _), jobs in counted.items() if state == wanted)

    ended = {state: total(state) for state in ("completed", "failed", "cancelled")}
    took = {took: jobs for (state, took), jobs in counted.items() if state == "completed" and took != _UNTIMED and jobs}
    return Period(
        name,
        asked=total("asked"),
        **ended,
        per_minute=round(sum(ended.values()) / (length.total_seconds() / 60), 2),
        p50_s=_percentile(took, 0.50),
        p95_s=_percentile(took, 0.95),
    )


def _percentile(took: Mapping[int, int], part: float) -> float | None:
    """Return the seconds within which a part of the jobs completed.

    A class of times goes from one quarter of a power of two to the next; within it jobs are taken to be spread evenly.
    """
    classes = sorted(took.items())
    if not classes:
        return None
    reached = [*accumulate(jobs for _, jobs in classes)]
    wanted = part * reached[-1]
    place = next(number for number, up_to in enumerate(reached) if up_to >= wanted)
    of_class, jobs = classes[place]
    within = (wanted - (reached[place] - jobs)) / jobs
    return round(float(2.0 ** ((of_class + within) / 4)), 3)
