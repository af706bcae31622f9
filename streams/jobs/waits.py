"""Each job says what it waits for, and where its time has gone.

    requested ─run_at, quota─▶ in line ─turn, cap, pause─▶ released ─worker, endpoint, pacing─▶ attempt ─call─▶ ended
                                  ▲                           │                                    │
                                  └────────── pacing ◀────────┴───────────── retry ◀───────────────┘

Every moment between a run's request and its end stands at one of them, so the times add up to the whole. They are read
from what the stages keep: an attempt keeps when its run came into the line and was released, when its endpoint last
took no calls, and when the run began to wait for the endpoint's limits. What has passed tells `turn` from the cap no
more, and of several holds before one call only the last; what waits now is told exactly. The time in a stage between
quota and the call counts as `worker`, of a run that ended there as `turn`: no row says when it passed. While a stage
after quota is paused, a run before its call is told to wait for that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias
from uuid import UUID

import aiosql
from pydantic import Field, TypeAdapter, ValidationError

from infra.clock import Moment
from infra.postgres import Connection
from streams.jobs.stages import ADMITS, RELEASED_TO, RUN_ENTRIES

_queries = aiosql.from_path(Path(__file__).with_name("waits.sql"), "asyncpg")
_MOMENT: Final[TypeAdapter[datetime]] = TypeAdapter(Moment)
_TOPICS: Final = sorted({topic for topic, _, _ in RUN_ENTRIES})

Gate: TypeAlias = Literal["run_at", "quota", "turn", "cap", "pause", "retry", "worker", "endpoint", "pacing"]
Step: TypeAlias = Gate | Literal["call"]


@dataclass(frozen=True, slots=True)
class WaitingFor:
    """A live run waits at this gate."""

    gate: Annotated[
        Gate,
        Field(
            description="`run_at`: its time. `quota`: admission. `turn`: others come first. `cap`: as many of its "
            "organization as may be are worked on. `pause`: its organization may have none, or operators have paused "
            "a stage on its way. `retry`: the next try is later. `endpoint`: the LLM takes no calls for a while. "
            "`pacing`: its limits by the minute have no room. `worker`: one that is free. More may be added."
        ),
    ]
    since: datetime
    until: Annotated[datetime | None, Field(description="When it goes on, where that is known.")] = None
    before: Annotated[
        int | None, Field(description="With `turn`, `cap` and `pause`: runs of its organization that come first.")
    ] = None


@dataclass(frozen=True, slots=True)
class Spent:
    """A run has spent this time at one step; a `call` is no wait."""

    run: int
    step: Step
    seconds: float


async def waiting_for(connection: Connection, job_id: UUID, run: int | None) -> WaitingFor | None:
    """Return what a run, or the newest, waits for. None: it is worked on or has ended."""
    stand = await _stand(connection, job_id, run)
    steps = await _steps(connection, job_id, stand)
    if not steps or stand["ended_at"] is not None:
        return None
    gate, since, _ = steps[-1]
    if gate == "call":
        return None
    until = {"endpoint": stand["closed_until"], "pause": _paused_until(stand)}.get(
        gate, stand["later_at"] if gate in _KNOWS_WHEN else None
    )
    return WaitingFor(gate, since, until, stand["before"] if gate in _IN_LINE else None)


async def time_spent(connection: Connection, job_id: UUID) -> list[Spent]:
    """Return where the time of a job's newest run has gone, step by step."""
    stand = await _stand(connection, job_id, None)
    total: dict[Step, float] = {}
    for step, began, ended in await _steps(connection, job_id, stand):
        total[step] = total.get(step, 0.0) + (ended - began).total_seconds()
    return [Spent(stand["run"], step, seconds) for step, seconds in total.items()]


_KNOWS_WHEN: Final = {"run_at", "quota", "retry", "pacing"}
# Where a pause of a stage keeps a run that quota has admitted.
_ADMITTED: Final = {"turn", "cap", "worker", "endpoint", "retry", "pacing"}
_IN_LINE: Final = {"turn", "cap", "pause"}


async def _stand(connection: Connection, job_id: UUID, run: int | None) -> Any:  # noqa: ANN401
    return await _queries.stand(
        connection, job_id=job_id, run=run, topics=_TOPICS, admits=ADMITS, released_to=list(RELEASED_TO)
    )


async def _steps(connection: Connection, job_id: UUID, stand: Any) -> list[tuple[Step, datetime, datetime]]:  # noqa: ANN401
    """Return the steps of a run from its request until it ended, or now; each begins where the one before it ended."""
    if stand["requested_at"] is None:
        return []
    rounds = [row async for row in _queries.rounds(connection, job_id=job_id, run=stand["run"])]
    over = stand["ended_at"] or stand["now"]
    at = stand["requested_at"]
    steps: list[tuple[Step, datetime, datetime]] = []
    for step, until in [*_marks(stand, rounds), (_now_at(stand, rounds), over)]:
        # One that is missing, or before the last (a clock was set; two attempts of one release), takes no time.
        if until is not None and at < min(until, over):
            steps.append((step, at, min(until, over)))
            at = min(until, over)
    # One that came to its gate in this very moment waits there too.
    if stand["ended_at"] is None and (not steps or steps[-1][0] != _now_at(stand, rounds)):
        steps.append((_now_at(stand, rounds), at, over))
    return steps


def _marks(stand: Any, rounds: Sequence[Any]) -> Iterator[tuple[Step, datetime | None]]:  # noqa: ANN401
    """Give each step that is over, with its end."""
    yield "run_at", _run_at(stand["run_at"])
    yield "quota", stand["admitted_at"]
    before: Step = "quota"
    for nth, one in enumerate(rounds):
        yield before, one["entered_at"]
        yield "turn", one["released_at"]
        waits = _waits_at(rounds[:nth], one["released_at"])
        yield waits, one["held_from"]
        yield "endpoint", one["held_until"]
        yield waits, one["began_at"]
        if not one["is_paced"]:
            yield "call", one["finished_at"]
        before = "pacing" if one["is_paced"] else "retry"
    if stand["in_line"] and stand["state"] != "parked":
        yield before, stand["entered_at"]
        if stand["state"] == "released":
            yield "turn", stand["released_at"]
            yield _waits_at(rounds, stand["released_at"]), stand["closed_since"]


def _waits_at(rounds: Sequence[Any], released_at: datetime | None) -> Step:
    """Return what a run that was released waits at, if its endpoint takes calls."""
    return "pacing" if rounds and rounds[-1]["is_paced"] and rounds[-1]["released_at"] == released_at else "worker"


def _now_at(stand: Any, rounds: Sequence[Any]) -> Step:  # noqa: ANN401
    """Return the step at which a live run stands, an operator's pause before all; of one that has ended, the last."""
    step = _stands_at(stand, rounds)
    paused = stand["admission_paused"] if step == "quota" else stand["way_paused"] and step in _ADMITTED
    return "pause" if paused and stand["ended_at"] is None else step


def _paused_until(stand: Any) -> datetime | None:  # noqa: ANN401
    until: datetime | None = stand["way_until" if stand["admitted_at"] is not None else "admission_until"]
    return until


def _stands_at(stand: Any, rounds: Sequence[Any]) -> Step:  # noqa: ANN401
    calls = [one for one in rounds if not one["is_paced"]]
    if stand["ended_at"] is not None:
        return _last(stand, calls)
    if calls and calls[-1]["finished_at"] is None:
        return "call"
    if not stand["in_line"]:
        return _before_the_line(stand)
    if stand["state"] == "parked":
        return "pacing" if rounds and rounds[-1]["is_paced"] else "retry"
    if stand["state"] == "released":
        return "endpoint" if stand["is_closed"] else _waits_at(rounds, stand["released_at"])
    if stand["most"] == 0:
        return "pause"
    return "cap" if stand["in_flight"] >= stand["most"] else "turn"


def _last(stand: Any, calls: Sequence[Any]) -> Step:  # noqa: ANN401
    """Return the step at which a run has ended; the end of a call is told a moment later."""
    if not calls:
        return "turn" if stand["admitted_at"] is not None else "quota"
    return "retry" if stand["outcome"] == "cancelled" and calls[-1]["finished_at"] is not None else "call"


def _before_the_line(stand: Any) -> Step:  # noqa: ANN401
    if stand["admitted_at"] is not None:
        return "worker"  # by a version that had no line
    run_at = _run_at(stand["run_at"])
    return "run_at" if run_at is not None and stand["later_at"] is not None and run_at > stand["now"] else "quota"


def _run_at(text: str | None) -> datetime | None:
    """Read what a sender wrote, which need not be a time."""
    try:
        return None if text is None else _MOMENT.validate_python(text)
    except ValidationError:
        return None
