"""The overview shows how the pipeline is, how it was, and what is wrong.

Jobs by time become bars, which its template draws as SVG.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from starlette.routing import Route

from infra.console.desk import Desk
from infra.console.visits import Visit
from infra.operations.history import Bar
from infra.operations.overview import Overviews

WIDTH: Final = 720
HEIGHT: Final = 120
_KINDS: Final = ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a bar: the jobs of one end."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Column:
    """A bar with what it says."""

    pieces: Sequence[Piece]
    says: str


@dataclass(frozen=True, slots=True)
class Chart:
    """The bars of a chart, and a sentence for those who do not see it."""

    columns: Sequence[Column]
    first: str
    last: str
    most: int
    says: str
    width: int = WIDTH
    height: int = HEIGHT


def chart_of(bars: Sequence[Bar], *, by: str) -> Chart:
    """Return the chart of the jobs that ended. `by` is the format of its times."""
    most = max((one.ended for one in bars), default=0)
    step = WIDTH / max(len(bars), 1)
    columns = [_column(one, number * step, step, most, by) for number, one in enumerate(bars) if one.ended]
    totals = ", ".join(f"{sum(getattr(one, kind) for one in bars):,} {kind}" for kind in _KINDS)
    first, last = (_time(bars[place].at, by) for place in (0, -1))
    return Chart(columns, first, last, most, f"{totals}, from {first} to {last}; at most {most:,} at once")


def _column(bar: Bar, x: float, step: float, most: int, by: str) -> Column:
    pieces, bottom = [], float(HEIGHT)
    for kind in _KINDS:
        jobs = getattr(bar, kind)
        if jobs:
            # A single failed job among thousands is still to be seen.
            height = max(jobs / most * HEIGHT, 2.0)
            bottom -= height
            pieces.append(Piece(kind, round(x, 1), round(max(bottom, 0.0), 1), round(step * 0.8, 1), round(height, 1)))
    ended = ", ".join(f"{getattr(bar, kind):,} {kind}" for kind in _KINDS if getattr(bar, kind))
    return Column(pieces, f"{_time(bar.at, by)}: {ended}")


def _time(at: datetime, by: str) -> str:
    return at.strftime(by)


def routes(desk: Desk, overviews: Overviews) -> list[Route]:
    """Return the routes."""

    async def model(_visit: Visit) -> Mapping[str, Any]:
        view = await overviews.read()
        return {
            "view": view,
            "day": chart_of(view.history.day, by="%H:%M"),
            "days": chart_of(view.history.days, by="%Y-%m-%d"),
        }

    return desk.live_page("/", "overview.html", model)
