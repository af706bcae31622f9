"""One row of the scoreboard: load, a fault again and again, and when all is over a look at the books.

The load does not stop for a fault: jobs are in flight when it strikes, and more are sent while it lasts. Rounds follow
each other as soon as one job has completed again, so a fault also meets the recovery from the one before. At the end
of the row everything must come to rest.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from infra.errors import DependencyDown
from tests.chaos.pipeline.audience import audience
from tests.chaos.pipeline.faults import Fault
from tests.chaos.pipeline.score import Score
from tests.chaos.pipeline.system import ENDED, NEVER_BEGAN, Load, System

_BEFORE, _DURING = 9, 6  # jobs sent in a round before the fault, and while it lasts
_TOGETHER = 100  # of a crowd, so that its callers do not time out
_WARM_UP = 3
_WARM_UP_S = 60.0
_BEGIN_S = 3.0  # longest wait for jobs to be in flight
_ANCHORED_S = 20.0  # longest wait for the database to know them
_NEXT_S = 15.0  # longest wait for a job to complete after a fault
_DRAIN_S = 60.0
_SLOWEST = 50.0  # jobs a second that a fleet ends at least, beside others on a small machine
_LOOK_S = 0.1
_REST = 4  # a look at many jobs takes long: this many times as long nothing is asked, so that the fleet has the machine


@dataclass
class _Row:
    """A row under way.

    Attributes:
        ended: when each job was first seen to have ended, by this process's clock: the system's own may be stepped.
        seen: the statuses at the last look that succeeded.
    """

    system: System
    fault: Fault
    load: Load
    injections: list[datetime] = field(default_factory=list)
    ended: dict[UUID, datetime] = field(default_factory=dict)
    seen: Mapping[UUID, str] = field(default_factory=dict)
    sending: set[asyncio.Task[None]] = field(default_factory=set)

    def send(self, number: int) -> None:
        task = asyncio.create_task(self.system.submit(self.load, number, durable_only=self.fault.anchored))
        self.sending.add(task)
        task.add_done_callback(self.sending.discard)

    async def look(self) -> None:
        """See how the jobs are; what was seen before stays while the database is away."""
        with suppress(DependencyDown):
            self.seen = await self.system.statuses(self.load)
            now = datetime.now(UTC)
            for job_id, status in self.seen.items():
                if status in ENDED:
                    self.ended.setdefault(job_id, now)

    @property
    def statuses(self) -> dict[UUID, str]:
        """The accepted jobs, as they were seen last."""
        return {job_id: self.seen.get(job_id, NEVER_BEGAN) for job_id in self.load.accepted}

    @property
    def at_rest(self) -> bool:
        """Whether every accepted job was seen to have ended."""
        return self.load.accepted.keys() <= self.ended.keys()


async def run(system: System, fault: Fault, *, tell: Callable[[int, str], None]) -> Score:
    """Inject a fault `fault.times` times under load, wait for rest, and return what came of it.

    Args:
        system: is left running and whole.
        fault: as this system meets it.
        tell: called with the number of injections so far and what is going on.
    """
    load = Load(f"{fault.name}-{time.time_ns()}")
    row = _Row(system, fault, load)
    began = time.monotonic()
    await system.open_account(load.organization_id)
    calls_before = await system.llm_calls()
    async with AsyncExitStack() as stack:
        told = await stack.enter_async_context(audience(system, load)) if fault.told else None
        await stack.enter_async_context(_watching(row))
        await _injections(row, tell)
        tell(fault.times, "draining")
        await _drained(row)
        statuses = row.statuses
        broken = [] if told is None else [*await told.objections(load)]
        broken += await system.inconsistencies(deadline_s=40.0)
    books = await system.books(load)
    calls = await system.llm_calls() - calls_before
    following, affected = _recoveries(row, statuses)
    return Score(
        system=system.name,
        fault=fault.name,
        title=fault.title,
        times=len(row.injections),
        jobs=len(load.accepted),
        refused=load.refused,
        completed=sum(status == "completed" for status in statuses.values()),
        failed=sum(status in ENDED - {"completed"} for status in statuses.values()),
        lost=sum(status == NEVER_BEGAN for status in statuses.values()),
        stuck=sum(status not in {NEVER_BEGAN, *ENDED} for status in statuses.values()),
        duplicate_effects=books.duplicate_effects,
        double_charges=books.double_charges,
        extra_calls=max(0, calls - books.known),
        failures=dict(books.failures),
        next_s=following,
        affected_s=affected,
        seconds=round(time.monotonic() - began, 1),
        events=0 if told is None else len(told.bodies),
        webhooks=0 if told is None else told.requests,
        broken=broken,
    )


async def _injections(row: _Row, tell: Callable[[int, str], None]) -> None:
    await row.system.submit(row.load, _WARM_UP)
    await _until(lambda: row.at_rest, _WARM_UP_S)
    for turn in range(row.fault.times):
        tell(turn, "injecting")
        if not await _round(row, turn) and not row.at_rest:
            break  # jobs wait and nothing moves any more: breaking it further shows nothing


@asynccontextmanager
async def _watching(row: _Row) -> AsyncIterator[None]:
    """See who ends, also while a fault is done or undone."""

    async def watch() -> None:
        while True:
            began = time.monotonic()
            await row.look()
            await asyncio.sleep(max(_LOOK_S, _REST * (time.monotonic() - began)))

    watch_task = asyncio.create_task(watch())
    try:
        yield
    finally:
        watch_task.cancel()
        with suppress(asyncio.CancelledError):
            await watch_task  # one that ended by itself has seen no job since


async def _round(row: _Row, turn: int) -> bool:
    """Inject once; return whether a job completed afterwards."""
    if row.fault.anchored:
        for sent in range(0, row.fault.crowd, _TOGETHER):
            await row.system.submit(row.load, min(_TOGETHER, row.fault.crowd - sent))
        await _anchored(row)
        row.send(_DURING)
    else:
        row.send(_BEFORE)
    await _until(lambda: "processing" in row.statuses.values(), _BEGIN_S)
    injected = datetime.now(UTC)
    row.injections.append(injected)
    async with row.fault.inject(row.system, turn):
        row.send(_DURING)
        await asyncio.sleep(row.fault.hold_s)

    def completed_since() -> bool:
        return any(at > injected and row.seen[job_id] == "completed" for job_id, at in row.ended.items())

    return await _until(completed_since, _NEXT_S)


async def _anchored(row: _Row) -> None:
    end = time.monotonic() + _ANCHORED_S
    while time.monotonic() < end:
        with suppress(DependencyDown):
            if await row.system.anchored(row.load):
                return
        await asyncio.sleep(_LOOK_S)


async def _until(condition: Callable[[], bool], longest_s: float) -> bool:
    """Wait until what was seen fulfils a condition; return whether it did in time."""
    end = time.monotonic() + longest_s
    while time.monotonic() < end:
        if condition():
            return True
        await asyncio.sleep(_LOOK_S)
    return False


async def _drained(row: _Row) -> None:
    if row.sending:
        await asyncio.wait(row.sending, timeout=_NEXT_S)
    longest_s = _DRAIN_S + (row.fault.crowd * row.fault.times / _SLOWEST if row.fault.anchored else 0)
    await _until(lambda: row.at_rest, longest_s)


def _recoveries(row: _Row, statuses: dict[UUID, str]) -> tuple[list[float], list[float]]:
    """Return the seconds from each injection to the next completed job, and to the end of each job in flight then."""
    completed = [row.ended[job_id] for job_id, status in statuses.items() if status == "completed"]
    following: list[float] = []
    affected: list[float] = []
    for injected in row.injections:
        later = [(at - injected).total_seconds() for at in completed if at > injected]
        following += [min(later)] if later else []
        affected += [
            (row.ended[job_id] - injected).total_seconds()
            for job_id in statuses.keys() & row.ended.keys()
            if row.load.accepted[job_id] <= injected < row.ended[job_id]
        ]
    return following, affected
