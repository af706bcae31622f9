"""Finding runs that stand still, and sending them what they wait for.

Postgres is the anchor: whatever the broker loses, the rows say which accepted runs have not ended, and how far each
came. Every remedy (see `remedies`) repeats an event that was or should have been sent, under its own ID, so that a run
that only seemed to stand still is not harmed: readers know the event, or do the same thing again. That costs them some
time; so the threshold is longer than any honest pause (the longest retry delay, a call, a stage's timeout), an attempt
under way counts as movement, and after an outage or an operator's pause, in which everything stood still and nothing
was lost, a whole threshold passes before anything is sent. A replayed run that is not known yet is found by its plan
(see `reruns`).

How a reservation ends that is not settled: by asking what became of its run:
- the run has ended: quota missed the fact, which is sent again, and settles it;
- the run is live and its request is known: the request is sent again, and the run goes on to an end of its own;
- the run's event is a dead letter that ended nothing (it killed every worker that took it, so that the broker's limit
  of deliveries moved it aside): sending it again would kill more of them. The run fails as `dead_lettered`;
- what was asked is not known: the request came straight into the stream, quota reserved, and the stream was lost before
  the projection had archived it. Nothing can be sent. Its JobAccepted may still wait in a backlog, so the run is given
  `expiry` before it fails as `expired`.
Both failures are decided like any other, in `job_outcomes`: if the run does end otherwise at that moment, one of the
two stands, and the reservation is settled by that one's fact. No reservation is settled here directly: the ledger has
one writer.

One transaction finds, publishes and notes; dying before its commit sends the same again later. The fact of a failure
that was decided here is published after the commit, because a fact without its decision would be a second end; dying in
between leaves a run that has ended and looks alive, which is found like any other. Two reconcilers at once (two
leaders, or none elected) exclude each other by a lock in Postgres.

Every time here is Postgres's, whose clock may be stepped all the same. Set forward, it makes all runs look as if they
had stood still; so whoever sees it jump waits a threshold, as after an outage. Set back, it leaves times that are yet
to come; a run with such a time is taken to stand still from the moment when it is found.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Final

import aiosql
import asyncpg
import structlog

from infra import telemetry
from infra.clock import Clock
from infra.errors import DependencyDown
from infra.postgres import Connection, Database, columns
from infra.postgres_errors import DATA_ERRORS
from infra.texts import storable
from producers.reconcile.remedies import Saved, StillRun, given_up_as, remedy, request_of_run
from producers.replay.reruns import lost_reruns, read_lost_rerun
from streams.delivery.deliveries import Record
from streams.delivery.interfaces import Publisher
from streams.jobs.completion import Usage
from streams.jobs.events import JobFailed, JobId, parse_event
from streams.jobs.outcomes import fail_runs
from streams.jobs.stages import RUN_ENTRIES, RUN_TOPICS

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("queries.sql"), "asyncpg")

# After the loss of a large backlog the streams should fill no faster than the stages empty them.
_BATCHES_IN_A_TICK: Final = 20
# The longest pause between two times that a run is sent again.
_LONGEST_BACKOFF: Final = timedelta(hours=1)
# A request is in `job_requests` from its commit, with the time at which its transaction began.
_LONGEST_TRANSACTION: Final = timedelta(minutes=10)
# A clock that was set back while there was no leader may have put a request before those that were looked at.
_LOOK_AT_ALL_S: Final = 3_600.0
# Times so little ahead were written while ours was read.
_AHEAD: Final = timedelta(seconds=1)
_LONGEST_REASON: Final = 1_000
_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class Reconciler:
    """Sends runs on that stand still.

    Attributes:
        threshold: how long a run may stand still. Longer: a lost event is noticed later; shorter: events are repeated
            that were only waiting. Also the first pause between two repeats for one run; doubled each time.
        expiry: how long a run may stand still of which nothing is left to send.
        attempt_time: how long an attempt may be under way.
        batch_size: runs sent on in one transaction, at most twenty of which make a tick.
        seconds: a clock that is never set.
        held: why nothing is sent at present, or None.
    """

    database: Database
    publisher: Publisher
    clock: Clock
    threshold: timedelta
    expiry: timedelta
    attempt_time: timedelta
    batch_size: int = 500
    seconds: Callable[[], float] = monotonic
    held: str | None = field(default=None, init=False)
    _not_before: float = field(default=-math.inf, init=False)
    # How far `clock` is ahead of `seconds`, as last seen.
    _offset: float = field(default=math.nan, init=False)
    # Every request accepted before, by Postgres's clock, is known to the read model; found by looking at all of them.
    _all_seen_until: datetime = field(default=_BEGINNING, init=False)
    _looked_at_all: float = field(default=-math.inf, init=False)

    async def tick(self) -> None:
        """Send on what stands still. While Postgres or the broker is away, and a threshold after, do nothing."""
        if self.seconds() < self._not_before:
            return
        try:
            for _ in range(_BATCHES_IN_A_TICK):
                if await self.reconcile() < self.batch_size:
                    break
        except DependencyDown as error:
            if self.held is None:
                log.warning("reconcile.held", dependency=error.dependency, why=str(error))
            self.held = str(error)
            self._not_before = self.seconds() + self.threshold.total_seconds()
        else:
            self.held = None

    async def reconcile(self) -> int:
        """Send on one batch of runs that stand still, and return how many were found.

        Raises:
            DependencyDown: Postgres or the broker is away; nothing is noted.
        """
        async with self.database.transaction(for_values=True) as connection:
            if not await _queries.try_lock(connection):
                return 0
            now = self.clock.now()
            if self._jumped(now) or await self._is_paused(connection):
                return 0
            plans = [self._plan(row, now) for row in await self._find(connection, now)]
            await self._publish([plan for plan in plans if plan.records])
            ended = await _fail(connection, [plan for plan in plans if plan.failure])
            await _queries.note(
                connection, **columns(plans, job_ids="job_id", runs="run", set_aside="set_aside"), now=now
            )
        _tell(plans)
        if ended:
            telemetry.EXPIRED.inc(len(ended))
            await self.publisher.publish(ended)
        return len(plans)

    def _plan(self, row: asyncpg.Record, now: datetime) -> "_Plan":
        """Say what to do about a run; one of which nothing can be said is set aside, and the others go on."""
        plan = _Plan(JobId(row["job_id"]), row["run"])
        try:
            plan.still = still = read_lost_rerun(row) if "sent_at" in row else _read(row)
            plan.records = remedy(still)
            plan.types = [parse_event(one.value).type for one in plan.records]
            plan.failure = given_up_as(still, now=now, expiry=self.expiry)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one row, it holds up no other
            plan.put_aside(error)
        return plan

    async def _publish(self, plans: Sequence["_Plan"]) -> None:
        """Publish what the runs are sent; one whose records cannot be published is set aside, and the others go on."""
        if not plans:
            return
        try:
            await self.publisher.publish([one for plan in plans for one in plan.records])
        except DependencyDown:
            raise
        except Exception as error:  # noqa: BLE001 - the same: what is wrong with one run holds up no other
            if len(plans) == 1:
                plans[0].put_aside(error)
                return
            half = len(plans) // 2
            await self._publish(plans[:half])
            await self._publish(plans[half:])

    def _jumped(self, now: datetime) -> bool:
        """Whether the clock was set forward since the last look. Then wait a threshold; set back, look at all again."""
        offset = now.timestamp() - self.seconds()
        step, self._offset = offset - self._offset, offset
        if not abs(step) > self.threshold.total_seconds() / 10:
            return False
        log.warning("reconcile.clock_stepped", by_s=round(step, 1))
        self._looked_at_all = -math.inf
        if step > 0:
            self._not_before = self.seconds() + self.threshold.total_seconds()
        return step > 0

    async def _is_paused(self, connection: Connection) -> bool:
        """Whether a stage is paused. When it goes on, what stood still until then has a threshold to move."""
        paused = bool(await _queries.is_paused(connection))
        if paused:
            self._not_before = self.seconds() + self.threshold.total_seconds()
        return paused

    async def _find(self, connection: Connection, now: datetime) -> Sequence[asyncpg.Record]:
        if self.seconds() - self._looked_at_all > _LOOK_AT_ALL_S:
            self._all_seen_until, self._looked_at_all = _BEGINNING, self.seconds()
        self._all_seen_until = await _queries.all_seen_until(
            connection, since=self._all_seen_until, margin=_LONGEST_TRANSACTION
        )
        await _queries.note_ahead(connection, ahead=now + _AHEAD, now=now)
        before, cap = now - self.threshold, max(_LONGEST_BACKOFF, self.threshold)
        rows = _queries.standing_still(
            connection,
            since=self._all_seen_until,
            before=before,
            ahead=now + _AHEAD,
            attempt_time=self.attempt_time,
            now=now,
            base=self.threshold,
            cap=cap,
            limit=self.batch_size,
            run_stages=list(RUN_TOPICS),
            run_types=list({event_type for _, _, event_type in RUN_ENTRIES}),
        )
        still = [row async for row in rows]
        room = self.batch_size - len(still)
        lost = await lost_reruns(connection, before=before, now=now, base=self.threshold, cap=cap, limit=room)
        return [*still, *lost]


@dataclass(slots=True)
class _Plan:
    """What is done about a run that stands still, or why nothing can be."""

    job_id: JobId
    run: int
    still: StillRun | None = None
    records: Sequence[Record] = ()
    types: Sequence[str] = ()
    failure: JobFailed | None = None
    set_aside: str | None = None

    def put_aside(self, error: Exception) -> None:
        """Send nothing, and remember why."""
        self.records, self.failure = (), None
        self.set_aside = storable(f"{type(error).__name__}: {error}", _LONGEST_REASON)


async def _fail(connection: Connection, plans: Sequence[_Plan]) -> Sequence[Record]:
    """End the runs as failed; return the facts that stand, which may be of a stage that was faster since the look.

    A run whose fact Postgres does not take is set aside, and the others go on.
    """
    if not plans:
        return ()
    try:
        async with connection.transaction():
            decided = await fail_runs(connection, [plan.failure for plan in plans if plan.failure])
    except DATA_ERRORS as error:
        if len(plans) == 1:
            plans[0].put_aside(error)
            return ()
        half = len(plans) // 2
        return [*await _fail(connection, plans[:half]), *await _fail(connection, plans[half:])]
    return [end.fact for end in decided.values() if end.fact and end.outcome == "failed"]


def _read(row: asyncpg.Record) -> StillRun:
    job_id = JobId(row["job_id"])
    event = row["archived"] or row["recorded"]
    saved = None
    if row["finished_at"] is not None:
        saved = Saved(Usage(row["model"] or "", row["prompt_tokens"], row["completion_tokens"]), row["finished_at"])
    return StillRun(
        job_id=job_id,
        run=row["run"],
        organization_id=row["organization_id"],
        request=None if event is None else request_of_run(event, row["run"]),
        in_archive=row["in_archive"],
        outcome=row["outcome"],
        fact=row["fact"],
        dead_lettered=row["dead_lettered"],
        saved=saved,
        moved_at=row["moved_at"],
    )


def _tell(plans: Sequence[_Plan]) -> None:
    for plan in plans:
        if plan.set_aside is not None:
            telemetry.SET_ASIDE.labels("reconcile").inc()
            log.error("job.set_aside", job_id=str(plan.job_id), run=plan.run, why=plan.set_aside)
        elif plan.still is not None:
            for kind in plan.types:
                telemetry.REEMITTED.labels(kind).inc()
            log.warning(
                "job.stood_still",
                job_id=str(plan.job_id),
                run=plan.run,
                since=plan.still.moved_at.isoformat(),
                outcome=plan.still.outcome,
                helped=bool(plan.records),
            )
