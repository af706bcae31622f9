"""One process at a time applies a plan, at a rate. Exactly the plan's set is sent; stopped anywhere, it can go on.

First the runs without an outcome are decided as failed, and the facts that say so are published; then the events are
sent in batches. A batch is one transaction: its failed events are locked and compared with what the plan showed, the
records are published, and the events are noted as sent. Dying in between sends that batch again, which changes nothing.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import inf
from pathlib import Path
from time import monotonic
from typing import Final
from uuid import UUID

import aiosql
import asyncpg

from infra.actions import Act, acting
from infra.clock import Clock
from infra.postgres import Connection, Database
from producers.applying import Pace, alone, uninterrupted
from producers.replay import records
from producers.replay.errors import PlanAborted, PlanBusy, PlanChanged, QuotaNotReleased
from producers.replay.plans import Plan, read_plan
from streams.delivery.deliveries import Record
from streams.delivery.failed_events import mark_replayed
from streams.delivery.interfaces import Publisher
from streams.delivery.seal import Seal, SealedPublisher
from streams.jobs.outcomes import fail_runs
from streams.jobs.topics import JOB_EVENTS, record

_queries = aiosql.from_path(Path(__file__).with_name("sending.sql"), "asyncpg")

_LARGEST_BATCH_BYTES: Final = 8 * 2**20
_LOOK_S: Final = 0.2
_LAST_POSITION: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a plan. `total` counts the events to send, `waiting` the jobs whose quota is still held."""

    total: int
    sent: int
    waiting: int = 0

    @property
    def finished(self) -> bool:
        """Return true if nothing is left."""
        return self.sent == self.total


def _ignore(_progress: Progress) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Replays:
    """Applies plans.

    Attributes:
        release_limit: how long to wait for the quota stage to release the runs that failed. Longer: a stage that is
            behind has time to catch up; shorter: it is sooner said that the stage is away.
    """

    database: Database
    publisher: Publisher
    clock: Clock
    release_limit: timedelta = timedelta(seconds=30)

    async def apply(
        self,
        plan_id: UUID,
        *,
        rate: float,
        report: Callable[[Progress], None] = _ignore,
        at_most: timedelta | None = None,
    ) -> Plan:
        """Send what a plan has not sent, and return the plan as it is then. A finished plan is returned as it is.

        Cancelling stops it after the batch under way; calling it again goes on from there.

        Args:
            plan_id: which plan.
            rate: events per second.
            report: told of the progress after each batch.
            at_most: stop in good order after this long, with the plan unfinished.

        Raises:
            ReplayError: UnknownPlan, PlanBusy, PlanChanged, PlanAborted or QuotaNotReleased. What was sent before stays
                sent; PlanChanged before the first event means that none was.
            DependencyDown: Postgres or the broker is away; calling again goes on.
        """
        async with alone(self.database, plan_id, Act("replay.apply", f"plan {plan_id}"), PlanBusy(plan_id)):
            act = Act("replay.apply", f"plan {plan_id}", effects={"rate": rate})
            async with acting(self.database, act) as connection:
                plan = await read_plan(connection, plan_id)
                act.effects |= {"state": plan.state, "sent": plan.sent, "total": plan.total}
                if plan.state == "finished":
                    return plan
                started_at = await _begin(connection, plan, now=self.clock.now())
            sealing = replace(self, publisher=SealedPublisher(self.publisher, Seal(self.database)))
            await _Sending(sealing, plan, started_at, rate, report, at_most).run()
        async with self.database.transaction() as connection:
            return await read_plan(connection, plan_id)


async def _begin(connection: Connection, plan: Plan, *, now: datetime) -> datetime:
    """Note that a plan is being applied, unless it may not be; return since when it is."""
    started_at: datetime | None = await _queries.begin(connection, plan_id=plan.id, now=now)
    if started_at is None:
        raise PlanAborted(plan.id)
    await _require_unchanged(connection, plan.id, begun=plan.state == "applying")
    return started_at


@dataclass(slots=True)
class _Sending:
    """One call of `apply`."""

    replays: Replays
    plan: Plan
    started_at: datetime
    rate: float
    report: Callable[[Progress], None]
    at_most: timedelta | None

    async def run(self) -> None:
        """Send until nothing is left or the time is up."""
        deadline = monotonic() + self.at_most.total_seconds() if self.at_most else inf
        pace = Pace(self.rate)
        while count := await uninterrupted(self._end_runs(pace.batch)):
            await pace.after(count)
        progress = Progress(self.plan.total, self.plan.sent)
        self.report(progress)
        last_sent = monotonic()
        while not progress.finished:
            if monotonic() >= deadline:
                return
            count = await uninterrupted(self._send_batch(pace.batch))
            sent = progress.sent + count
            progress = Progress(progress.total, sent, waiting=0 if count else progress.total - sent)
            self.report(progress)
            if count:
                await pace.after(count)
                last_sent = monotonic()
            elif monotonic() - last_sent > self.replays.release_limit.total_seconds():
                raise QuotaNotReleased(self.plan.id, progress.waiting)
            else:
                await asyncio.sleep(_LOOK_S)
        async with self.replays.database.transaction() as connection:
            await _queries.end(connection, plan_id=self.plan.id, state="finished", now=self.replays.clock.now())

    async def _end_runs(self, size: int) -> int:
        """Decide that runs without an outcome have failed, then publish that; return how many.

        The decision is committed before its fact goes out: else a run could complete after its quota was released.
        """
        replays = self.replays
        async with replays.database.transaction() as connection:
            await self._require_going_on(connection)
            rows = [row async for row in _queries.next_to_end(connection, plan_id=self.plan.id, limit=size)]
            if not rows:
                return 0
            await self._lock(connection, rows)
            facts = await self._fail(connection, rows)
        await replays.publisher.publish(facts)
        async with replays.database.transaction() as connection:
            await _queries.note_ended(
                connection, plan_id=self.plan.id, positions=_positions(rows), now=replays.clock.now()
            )
        return len(rows)

    async def _fail(self, connection: Connection, rows: Sequence[asyncpg.Record]) -> Sequence[Record]:
        """Decide that runs have failed; return the facts that say so, the first ones if this is a repeat."""
        clock = self.replays.clock
        facts = [records.ended(row["event"], row["headers"], clock) for row in rows]
        decided = await fail_runs(connection, facts)
        ends = [decided[fact.job_id, fact.run] for fact in facts]
        others = [(row, end.outcome) for row, end in zip(rows, ends, strict=True) if end.outcome != "failed"]
        if others:
            raise PlanChanged(
                self.plan.id,
                [
                    f"{row['failed_event_id']}: job {row['job_id']} run {row['run']} has ended as {outcome}"
                    for row, outcome in others
                ],
            )
        await _queries.note_outcome(connection, plan_id=self.plan.id, positions=_positions(rows))
        return [end.fact or record(JOB_EVENTS, fact) for end, fact in zip(ends, facts, strict=True)]

    async def _send_batch(self, size: int) -> int:
        """Send the next events that can be sent; return how many."""
        replays = self.replays
        async with replays.database.transaction() as connection:
            await self._require_going_on(connection)
            rows = [
                row
                async for row in _queries.next_batch(
                    connection, plan_id=self.plan.id, limit=size, max_bytes=_LARGEST_BATCH_BYTES
                )
            ]
            if not rows:
                return 0
            await self._lock(connection, rows)
            await replays.publisher.publish([_record(row, at=self.started_at) for row in rows])
            now = replays.clock.now()
            sent = await _queries.note_sent(connection, plan_id=self.plan.id, positions=_positions(rows), now=now)
            await mark_replayed(connection, sent["ids"], sent["occurrences"], now=now)
        return len(rows)

    async def _lock(self, connection: Connection, rows: Sequence[asyncpg.Record]) -> None:
        """Keep failed events as they are, and require that they are what the plan showed."""
        await _queries.lock_failed_events(connection, ids=[row["failed_event_id"] for row in rows])
        positions = _positions(rows)
        await _require_unchanged(connection, self.plan.id, begun=True, first=positions[0], last=positions[-1])

    async def _require_going_on(self, connection: Connection) -> None:
        if await _queries.state(connection, plan_id=self.plan.id) == "aborted":
            raise PlanAborted(self.plan.id)


async def _require_unchanged(
    connection: Connection, plan_id: UUID, *, begun: bool, first: int = 0, last: int = _LAST_POSITION
) -> None:
    changes = [
        _change(row) async for row in _queries.changes(connection, plan_id=plan_id, first=first, last=last, begun=begun)
    ]
    if changes:
        raise PlanChanged(plan_id, changes)


def _change(row: asyncpg.Record) -> str:
    """Say what is different about an event."""
    if row["state"] != "open":
        return f"{row['failed_event_id']}: was {row['state']}"
    if row["failed_again"]:
        return f"{row['failed_event_id']}: failed again"
    now = row["latest_outcome"] or "under way"
    return f"{row['failed_event_id']}: job {row['job_id']} has moved on, run {row['latest_run']} is {now}"


def _positions(rows: Sequence[asyncpg.Record]) -> list[int]:
    return [row["position"] for row in rows]


def _record(row: asyncpg.Record, *, at: datetime) -> Record:
    if row["action"] == "rerun":
        return records.rerun(row["event"], row["headers"], run=row["next_run"], at=at)
    return records.resend(row["topic"], row["stage"], row["key"], row["event"], row["headers"])
