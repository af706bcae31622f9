"""A job's life becomes marks on one axis, which a template draws as SVG."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from infra.operations.jobs import JobLife

WIDTH: Final = 1000
_LEFT: Final = 190
_ROW: Final = 26
_HEAD: Final = 28
_LEAST: Final = 3.0
# A job of a thousand runs is a long page already; the tables below have all of it.
_MOST_ROWS: Final = 200
# Further from the pipeline's own times than this, a time is a sender's mistake, and would squeeze all else to a line.
_MARGIN: Final = timedelta(days=7)

Kind: TypeAlias = Literal["wait", "call", "failed", "event", "later"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A bar or a point of the timeline, with what it says."""

    label: str
    kind: Kind
    x: float
    y: int
    width: float
    says: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """The marks, the ticks of the axis, and how large the drawing is."""

    marks: Sequence[Mark]
    ticks: Sequence[tuple[float, str]]
    height: int
    left_out: int
    width: int = WIDTH


@dataclass(frozen=True, slots=True)
class _Part:
    label: str
    kind: Kind
    begin: datetime
    end: datetime
    says: str


def timeline_of(life: JobLife, *, now: datetime) -> Timeline | None:
    """Return the timeline of a job; None if nothing of it has a time."""
    every = list(_parts(life, now))
    if not every:
        return None
    earliest, latest = _believed(life, every, now)
    on_axis = [part for part in every if earliest <= part.begin and part.end <= latest] or every
    begin, end = min(part.begin for part in on_axis), max(part.end for part in on_axis)
    parts = sorted((_within(part, begin, end) for part in every), key=lambda part: (part.begin, part.end))
    length = max((end - begin).total_seconds(), 0.001)
    scale = (WIDTH - _LEFT - 20) / length

    def place(at: datetime) -> float:
        return round(_LEFT + (at - begin).total_seconds() * scale, 1)

    shown = parts[:_MOST_ROWS]
    marks = [
        Mark(
            part.label,
            part.kind,
            place(part.begin),
            _HEAD + row * _ROW,
            max(_LEAST, round(place(part.end) - place(part.begin), 1)),
            part.says,
        )
        for row, part in enumerate(shown)
    ]
    ticks = [(place(begin + timedelta(seconds=length * step / 4)), _seconds(length * step / 4)) for step in range(5)]
    return Timeline(marks, ticks, _HEAD + len(shown) * _ROW + 8, len(parts) - len(shown))


def _parts(life: JobLife, now: datetime) -> Iterable[_Part]:
    asked = life.request.accepted_at if life.request else life.job.created_at if life.job else None
    first_call = min((call.started_at for call in life.calls), default=None)
    if asked is not None:
        ended = life.job.completed_at if life.job else None
        yield _part("waits", "wait", asked, first_call or ended or now, "from the request to the first call")
    for call in life.calls:
        tokens = (call.prompt_tokens or 0) + (call.completion_tokens or 0)
        cost = f"{tokens:,} tokens" if tokens else "tokens unknown" if call.maybe_billed else "no tokens"
        kind: Kind = "failed" if call.error_code else "call"
        says = f"run {call.run}, attempt {call.attempt}: {call.error_code or call.state}, {cost}"
        yield _part(f"call {call.run}.{call.attempt}", kind, call.started_at, call.finished_at or now, says)
    for fact in life.facts:
        name = fact.type.split(".")[2] if fact.type.count(".") > 1 else fact.type
        kind = "failed" if name in {"failed", "rejected", "cancelled"} else "event"
        yield _part(name, kind, fact.time, fact.time, f"run {fact.run}: {fact.type}")
    for later in life.scheduled:
        yield _part("scheduled", "later", later.due_at, later.due_at, f"{later.reason}, to {later.topic}")


def _believed(life: JobLife, parts: Sequence[_Part], now: datetime) -> tuple[datetime, datetime]:
    """Return between which times an event may be. Senders say when theirs was, and some are wrong by years.

    The pipeline's own times tell: of the intake, of the ledger, of calls and ends, and of what is scheduled.
    """
    own = [life.request.accepted_at] if life.request else []
    own += [at for call in life.calls for at in (call.started_at, call.finished_at) if at is not None]
    own += [at for unit in life.quota for at in (unit.decided_at, unit.settled_at) if at is not None]
    own += [one.decided_at for one in life.outcomes] + [one.due_at for one in life.scheduled]
    if life.job is None or life.job.completed_at is None:
        own.append(now)
    if not own:
        own = [sorted(part.begin for part in parts)[len(parts) // 2]]
    return min(own) - _MARGIN, max(own) + _MARGIN


def _within(part: _Part, begin: datetime, end: datetime) -> _Part:
    """Return a part as it stands on the axis; one that is outside stands at its edge, and says so."""
    if begin <= part.begin and part.end <= end:
        return part
    odd = part.begin if part.begin < begin else part.end
    says = f"{part.says}; its own time is {odd:%Y-%m-%d %H:%M:%S}, which is not on this axis"
    first = min(max(part.begin, begin), end)
    return _Part(f"{part.label} (odd time)", part.kind, first, min(max(part.end, first), end), says)


def _part(label: str, kind: Kind, begin: datetime, end: datetime, says: str) -> _Part:
    return _Part(label, kind, begin, max(begin, end), says)  # clocks of machines differ


def _seconds(length: float) -> str:
    if length < 120:  # noqa: PLR2004 - two minutes are best read in seconds
        return f"{length:.1f} s"
    return f"{length / 60:.0f} min" if length < 2 * 3600 else f"{length / 3600:.1f} h"
