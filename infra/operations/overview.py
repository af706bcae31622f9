"""The overview says how the pipeline is, what is wrong, and where that is mended.

Its page, `teamfit top` and `GET /api/ops/overview` show the same. What changes by the second is read at most every two
seconds, what is added up over time every twenty, by one reader of a process for all who look at once. Each statement
reads an index from one end, or a small table; none reads one that grows with the jobs as a whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import aiosql

from consumers.generation import fleet, gate, meter
from consumers.generation.fleet import HeldEndpoint
from consumers.generation.gate import FleetGate
from consumers.generation.meter import EndpointUse
from infra.errors import DependencyDown
from infra.looks import SharedLook
from infra.operations.controls import Process, controls, processes
from infra.operations.faults import Fault, StageNow, Stages, faults_of
from infra.operations.history import History, read_history
from infra.operations.job_search import COUNTED, Count
from infra.operations.streams import Lag, read_lag
from infra.postgres import Connection, Database
from infra.settings import Settings
from producers.broker import Broker
from producers.schedule.periodic import standings
from streams.jobs.admission import period_of
from streams.jobs.controls import Control
from streams.redis.errors import TransportError

_queries = aiosql.from_path(Path(__file__).with_name("overview.sql"), "asyncpg")

_FRESH_S: Final = 2.0
_ADDED_UP_FRESH_S: Final = 20.0
_LONGEST_S: Final = 10.0
_ENDPOINT_HOURS: Final = 24

State: TypeAlias = Literal["idle", "at work", "paused", "held", "stalled"]


@dataclass(frozen=True, slots=True)
class Now:
    """The pipeline has this at one moment. Counts are exact up to 10,000.

    Attributes:
        pending, processing: jobs that have not ended.
        failed: failed events that are open.
        due, overdue: events that are published later, and those whose time has come.
        last_event_at: when anything last happened to any job.
    """

    pending: Count
    processing: Count
    failed: Count
    due: Count
    overdue: Count
    first_due_at: datetime | None
    last_event_at: datetime | None


@dataclass(frozen=True, slots=True)
class FailedKind:
    """Open failed events of one stage and error, among the latest 10,000."""

    stage: str
    error_type: str
    events: int
    last_failed_at: datetime


@dataclass(frozen=True, slots=True)
class MonthsSpend:
    """The calls of this month (UTC), of all organizations. Money is in millionths of the currency's unit."""

    period: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: int
    unpriced_calls: int
    currency: str | None


@dataclass(frozen=True, slots=True)
class Verified:
    """The last `teamfit verify` has found this. `violated`: the invariants that did not hold."""

    at: datetime
    settled: bool
    ok: bool
    violated: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class AddedUp:
    """These numbers are added up over time."""

    history: History
    failed: Sequence[FailedKind]
    endpoints: Sequence[EndpointUse]
    spend: MonthsSpend
    verified: Verified | None
    failing_tasks: Sequence[str]


@dataclass(frozen=True, slots=True)
class Overview:
    """The pipeline at one moment.

    Attributes:
        state: of the whole: `idle`, nothing waits; `stalled`, something waits and nothing moves.
        sentence: the same for people.
        faults: what is wrong, with where it is mended.
        broker: why the broker does not tell what waits, or None.
    """

    at: datetime
    state: State
    sentence: str
    faults: Sequence[Fault]
    jobs: Now
    history: History
    stages: Sequence[StageNow]
    controls: Sequence[Control]
    gates: Sequence[FleetGate]
    holds: Sequence[HeldEndpoint]
    endpoints: Sequence[EndpointUse]
    spend: MonthsSpend
    failed: Sequence[FailedKind]
    verified: Verified | None
    broker: str | None


class Overviews:
    """Reads the overview, once for all who ask within two seconds."""

    def __init__(self, settings: Settings, database: Database, broker: Broker) -> None:
        self._database, self._broker = database, broker
        self._stall_after = timedelta(seconds=settings.stall_threshold_s)
        self._stages = Stages(self._stall_after)
        self._now = SharedLook(self._look, fresh_s=_FRESH_S, longest_s=_LONGEST_S)
        self._added_up = SharedLook(self._add_up, fresh_s=_ADDED_UP_FRESH_S, longest_s=_LONGEST_S)

    async def read(self) -> Overview:
        """Return the overview.

        Raises:
            DependencyDown: Postgres is away. That the broker is away stands in the overview.
        """
        try:
            return await self._now.latest()
        except TimeoutError as error:
            raise DependencyDown("postgres", f"the overview cannot be read: {error}") from error

    async def close(self) -> None:
        """End a look that is under way."""
        await self._now.close()
        await self._added_up.close()

    async def _look(self) -> Overview:
        at = self._database.clock.now()
        fleet_now, wanted = await processes(self._database), await controls(self._database)
        async with self._database.transaction() as connection:
            now = _now_of(await _queries.now(connection, now=at, bound=COUNTED + 1))
            gates = [one for one in await gate.gates(connection) if one.closed_for]
            holds = await fleet.holds(connection)
        lag, broker = await self._lag()
        stages = self._stages.look(at, fleet_now, wanted, lag, now.first_due_at, now.overdue.number)
        added_up = await self._added_up.latest()
        state, sentence = self._state(at, now, stages, wanted, blocked=bool(gates or holds))
        return Overview(
            at=at,
            state=state,
            sentence=sentence,
            faults=faults_of(
                stages,
                broker=broker,
                unread=() if lag is None else lag.unread,
                gone=[one for one in fleet_now if _is_gone(one)],
                gates=gates,
                holds=holds,
                standing=sentence if state == "stalled" else None,
                unmet=() if added_up.verified is None else added_up.verified.violated,
                failing_tasks=added_up.failing_tasks,
            ),
            jobs=now,
            history=added_up.history,
            stages=stages,
            controls=wanted,
            gates=gates,
            holds=holds,
            endpoints=added_up.endpoints,
            spend=added_up.spend,
            failed=added_up.failed,
            verified=added_up.verified,
            broker=broker,
        )

    async def _lag(self) -> tuple[Lag | None, str | None]:
        try:
            return await read_lag(self._broker), None
        except (DependencyDown, TransportError) as error:
            return None, str(error)

    async def _add_up(self) -> AddedUp:
        now = self._database.clock.now()
        async with self._database.transaction() as connection:
            failed = [FailedKind(**row) async for row in _queries.failed_kinds(connection, bound=COUNTED)]
            verified = await _queries.verified(connection)
            tasks = await standings(connection)
            return AddedUp(
                history=await read_history(connection, now),
                failed=failed,
                endpoints=await meter.endpoints(connection, _ENDPOINT_HOURS),
                spend=await _spent(connection, period_of(now)),
                verified=None if verified is None else Verified(**verified),
                failing_tasks=[f"{one.name}: {one.error}" for one in tasks if one.error is not None],
            )

    def _state(
        self, at: datetime, now: Now, stages: Sequence[StageNow], wanted: Sequence[Control], *, blocked: bool
    ) -> tuple[State, str]:
        live = now.pending.number + now.processing.number
        waits = f"{now.pending} pending, {now.processing} processing"
        states = {stage.state for stage in stages}
        if wanted and any(one.kind in ("pause", "intake") and not one.organization_id for one in wanted):
            return "paused", f"Operators have paused something; {waits}."
        if "held" in states or blocked:
            return "held", f"Something waits for a dependency; {waits}."
        queued = any(stage.waiting or stage.pending for stage in stages)
        quiet_for = None if now.last_event_at is None else at - now.last_event_at
        absent = queued and "absent" in states
        # A job may wait for its time, turn or retry. It stands still when nothing at all has happened for long.
        still = live and not now.due.number and (quiet_for is None or quiet_for > self._stall_after)
        if "stalled" in states or absent or still:
            since = (
                ""
                if now.last_event_at is None
                else f", and nothing has happened since {now.last_event_at:%H:%M:%S} UTC"
            )
            return "stalled", f"Work waits and does not move: {waits}{since if still else ''}."
        if live or queued:
            return "at work", f"{waits}."
        return "idle", "Nothing waits."


def _now_of(row: Mapping[str, Any]) -> Now:
    counted = {name: Count.of(row[name]) for name in ("pending", "processing", "failed", "due", "overdue")}
    return Now(**counted, first_due_at=row["first_due_at"], last_event_at=row["last_event_at"])


async def _spent(connection: Connection, period: str) -> MonthsSpend:
    return MonthsSpend(period, **await _queries.spent(connection, period=period))


def _is_gone(one: Process) -> bool:
    return one.state == "gone"
