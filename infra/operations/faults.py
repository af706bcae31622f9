"""A fault says what is wrong, where it is mended, and where that is written.

Most faults are a stage's: it is idle, at work, paused, held, stalled, or has no worker.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

from consumers.generation.fleet import HeldEndpoint
from consumers.generation.gate import FleetGate
from infra.operations.controls import Process
from infra.operations.streams import Lag
from streams.jobs.controls import Control
from streams.jobs.stages import SCHEDULE, STAGES
from streams.redis.backlog import GroupBacklog

StageState: TypeAlias = Literal["idle", "at work", "paused", "held", "stalled", "absent", "unknown"]

# What waits, what is pending, and the age of the oldest in seconds.
_Work: TypeAlias = tuple[int | None, int, float | None]

# Entries that were never read, while a worker lives that does nothing: it takes them within a moment, or not at all.
_UNREAD_FOR_S: Final = 15.0
_OVERDUE: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class StageNow:
    """A stage at this moment.

    Attributes:
        state: `idle`: nothing waits. `held`: it waits for a dependency, which `held` names. `stalled`: work waits, a
            worker lives, and nothing moves. `absent`: no worker lives. `unknown`: the broker does not tell.
        workers: processes that live.
        under_way, concurrency: what they do at once, and how much they may.
        waiting: entries that no worker has read yet; None where the broker does not tell. Of the schedule: what is
            overdue.
        pending: entries that were read and are not done.
        oldest_s: since when the oldest of those was sent, in seconds.
        held: why workers stand still by themselves, each reason once.
        paused: who has paused it for all, why and until when.
        paused_for: organizations for which it is paused alone.
    """

    name: str
    state: StageState
    workers: int
    under_way: int
    concurrency: int
    waiting: int | None
    pending: int
    oldest_s: float | None
    held: Sequence[str]
    paused: str | None
    paused_for: Sequence[str]


class Stages:
    """Looks at the stages. It remembers since when entries were seen that no worker reads.

    Args:
        stall_after: how long work may stand still.
    """

    def __init__(self, stall_after: timedelta) -> None:
        self._stall_after = stall_after
        self._unread_since: dict[str, datetime] = {}

    def look(
        self,
        at: datetime,
        processes: Iterable[Process],
        controls: Sequence[Control],
        lag: Lag | None,
        first_due_at: datetime | None,
        overdue: int,
    ) -> list[StageNow]:
        """Return every stage, in the order of a job's way."""
        living = [one for one in processes if one.state == "alive" and one.kind == "worker"]
        found = []
        for stage in STAGES:
            if stage.name == SCHEDULE:
                late = None if first_due_at is None or first_due_at > at else (at - first_due_at).total_seconds()
                work: _Work | None = (overdue, 0, late)
            else:
                work = None if lag is None else _work(lag, stage.name)
            found.append(self._stage(at, stage.name, living, controls, work))
        return found

    def _stage(
        self,
        at: datetime,
        name: str,
        living: Sequence[Process],
        controls: Sequence[Control],
        work: _Work | None,
    ) -> StageNow:
        doing = [one for process in living for one in process.doing if one["stage"] == name]
        pauses = [one for one in controls if one.kind == "pause" and one.subject == name]
        waiting, pending, oldest_s = work or (None, 0, None)
        under_way = sum(int(one["under_way"]) for one in doing)
        unread = self._unread(at, name, waiting=bool(waiting) and not pending and not under_way)
        held = list(dict.fromkeys(str(one["held"]) for one in doing if one["held"]))
        paused = next((one.sentence for one in pauses if not one.organization_id), None)
        stalled = unread or self._is_old(name, oldest_s)
        return StageNow(
            name,
            _state(
                paused=paused is not None,
                absent=not doing,
                held=bool(held),
                stalled=stalled,
                work=None if work is None else bool(waiting or pending or under_way),
            ),
            workers=len(doing),
            under_way=under_way,
            concurrency=sum(int(one["concurrency"]) for one in doing),
            waiting=waiting,
            pending=pending,
            oldest_s=oldest_s,
            held=held,
            paused=paused,
            paused_for=[one.organization_id for one in pauses if one.organization_id],
        )

    def _is_old(self, name: str, oldest_s: float | None) -> bool:
        most = _OVERDUE if name == SCHEDULE else self._stall_after
        return oldest_s is not None and oldest_s > most.total_seconds()

    def _unread(self, at: datetime, name: str, *, waiting: bool) -> bool:
        if not waiting or name == SCHEDULE:
            self._unread_since.pop(name, None)
            return False
        since = self._unread_since.setdefault(name, at)
        return (at - since).total_seconds() > _UNREAD_FOR_S


def _state(*, paused: bool, absent: bool, held: bool, stalled: bool, work: bool | None) -> StageState:
    """Return the first that fits, the one that explains the others before them."""
    states: dict[StageState, bool] = {
        "absent": absent,
        "paused": paused,
        "held": held,
        "stalled": stalled,
        "unknown": work is None,
        "at work": bool(work),
    }
    return next((state for state, holds in states.items() if holds), "idle")


def _work(lag: Lag, stage: str) -> _Work:
    groups: list[GroupBacklog] = [one for topic in lag.topics for one in topic.groups if one.group == stage]
    lags = [one.lag for one in groups]
    ages = [one.oldest_pending.total_seconds() for one in groups if one.oldest_pending is not None]
    waiting = None if None in lags else sum(one for one in lags if one is not None)
    return waiting, sum(one.pending for one in groups), max(ages, default=None)


_LLM: Final = "The LLM is down or limits us"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something is wrong.

    Attributes:
        says: what, in a sentence.
        page: the console's page on which it is mended, or looked into.
        section: of docs/operating.md.
        detail: the words of a provider or of an operator.
    """

    says: str
    page: str
    section: str
    detail: str | None = None


def faults_of(
    stages: Sequence[StageNow],
    *,
    broker: str | None,
    unread: Iterable[str],
    gone: Sequence[Process],
    gates: Iterable[FleetGate],
    holds: Iterable[HeldEndpoint],
    standing: str | None,
    unmet: Iterable[Mapping[str, Any]],
    failing_tasks: Iterable[str],
) -> list[Fault]:
    """Return what is wrong, the cause before what may follow from it."""
    found = [] if broker is None else [Fault(broker, "/streams", "The broker is down")]
    found += [Fault(f"{one.endpoint} ({one.model}) is not called", "/workers", _LLM, one.sentence) for one in holds]
    found += [
        Fault(f"The gate of {one.endpoint} is closed for {_seconds(one)} s", "/workers", _LLM, one.reason)
        for one in gates
    ]
    found += [fault for stage in stages if (fault := _of_stage(stage)) is not None]
    for one in gone:
        says = f"The {one.kind} {one.process[:8]} on {one.host} ({', '.join(one.stages)}) ended without a word"
        found.append(Fault(says, "/workers", "A worker died or hangs"))
    found += [Fault(sentence, "/streams", "The backlog grows") for sentence in unread]
    if standing is not None:
        found.append(Fault(standing, "/jobs?status=pending&order=oldest", "A job stands still"))
    found += _of_checks(unmet)
    found += [Fault(f"The periodic task {one}", "/schedule", "A bad deploy") for one in failing_tasks]
    return found


def _of_stage(stage: StageNow) -> Fault | None:
    match stage.state:
        case "absent":
            waiting = f"; {stage.waiting} entries wait" if stage.waiting else ""
            return Fault(f"No worker of {stage.name} lives{waiting}", "/workers", "A worker died or hangs")
        case "stalled":
            return Fault(f"{stage.name} has work, and does not move", "/streams", "The backlog grows")
        case "held":
            return Fault(f"{stage.name} is held", "/workers", "A job stands still", "; ".join(stage.held))
        case _:
            return None


def _of_checks(unmet: Iterable[Mapping[str, Any]]) -> Iterator[Fault]:
    for one in unmet:
        says = f"teamfit verify: {one['name']} did not hold for {one['violations']}. {one['next_step']}"
        yield Fault(says, "/failed", "Where to look")


def _seconds(gate: FleetGate) -> int:
    return round(gate.closed_for.total_seconds())
