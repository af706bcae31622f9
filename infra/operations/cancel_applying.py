"""One process at a time applies a plan of cancellations, at a rate. Stopped anywhere, it can go on.

A batch is one transaction: the runs are decided as cancelled, what became of each job is noted in the plan, and the log
of actions has a line. Then their facts are published. If the process dies
- before the commit: the batch is done again, and nothing of it had happened;
- after the commit: the jobs are cancelled and noted, and the reconciler publishes their facts, as it does for a single
  cancellation.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from time import monotonic
from typing import Any, Final
from uuid import UUID

import structlog

from infra import telemetry
from infra.actions import Act, acting, note
from infra.errors import Refused
from infra.operations.cancel_plans import CancelPlan, digest_of, queries, read_cancel_plan
from infra.postgres import Connection
from infra.texts import storable
from producers.applying import Pace, alone, uninterrupted
from producers.cancel.cancellation import Cancellation
from streams.delivery.deliveries import Record
from streams.jobs.cancellations import cancel_runs, cancelled_fact
from streams.jobs.events import JobCancelled, JobId

log = structlog.get_logger(__name__)

_LONGEST_REASON: Final = 500


@dataclass(frozen=True, slots=True)
class CancelProgress:
    """The progress of a plan."""

    total: int
    left: int
    cancelled: int


def _ignore(_progress: CancelProgress) -> None:
    pass


@dataclass(frozen=True, slots=True)
class CancelApplier:
    """Applies plans of cancellations."""

    cancellation: Cancellation

    async def apply(
        self,
        plan_id: UUID,
        *,
        because: str,
        rate: float,
        report: Callable[[CancelProgress], None] = _ignore,
        at_most: timedelta | None = None,
    ) -> CancelPlan:
        """Cancel what is left of a plan, and return the plan as it is then. A finished plan is returned as it is.

        Cancelling the call stops it after the batch under way; calling it again goes on from there.

        Args:
            plan_id: which plan.
            because: why; the customers read it. What was said first holds.
            rate: jobs per second.
            report: told of the progress after each batch.
            at_most: stop in good order after this long, with the plan unfinished.

        Raises:
            Refused: there is no such plan, it was aborted or changed, or another process applies it.
            DependencyDown: Postgres is away; calling again goes on.
        """
        if not because.strip():
            raise Refused("invalid_request", "because: say why; the customers read it")
        database = self.cancellation.database
        act = Act("cancel.apply", f"plan {plan_id}", because, {"rate": rate})
        async with alone(database, plan_id, act, _busy(plan_id)):
            async with acting(database, act) as connection:
                plan = await read_cancel_plan(connection, plan_id)
                act.effects |= {"state": plan.state, "cancelled": plan.cancelled, "left": plan.left}
                if plan.state == "finished":
                    return plan
                reason = await self._begin(connection, plan, because)
            await self._run(plan, reason, rate, report, at_most)
        async with database.transaction() as connection:
            return await read_cancel_plan(connection, plan_id)

    async def _begin(self, connection: Connection, plan: CancelPlan, because: str) -> str:
        """Note that a plan is being applied, unless it may not be; return why."""
        reason = storable(because.strip(), _LONGEST_REASON)
        begun = await queries.begin(connection, id=plan.id, reason=reason, now=self.cancellation.clock.now())
        if begun is None:
            raise _aborted(plan.id)
        if await digest_of(connection, plan.id) != plan.digest:
            raise Refused("plan_changed", f"plan {plan.id}: its set is not the one that was shown; make a new plan")
        return str(begun["reason"])

    async def _run(
        self,
        plan: CancelPlan,
        reason: str,
        rate: float,
        report: Callable[[CancelProgress], None],
        at_most: timedelta | None,
    ) -> None:
        deadline = monotonic() + at_most.total_seconds() if at_most else inf
        pace = Pace(rate)
        progress = CancelProgress(plan.total, plan.left, plan.cancelled)
        report(progress)
        while progress.left:
            if monotonic() >= deadline:
                return
            results = await uninterrupted(self._batch(plan.id, reason, pace.batch))
            cancelled = progress.cancelled + results["cancelled"]
            progress = CancelProgress(progress.total, progress.left - results.total(), cancelled)
            report(progress)
            await pace.after(results.total())
        async with self.cancellation.database.transaction() as connection:
            await queries.end(connection, id=plan.id, state="finished", now=self.cancellation.clock.now())

    async def _batch(self, plan_id: UUID, reason: str, size: int) -> Counter[str]:
        """Cancel the next jobs; return what became of them."""
        async with self.cancellation.database.transaction() as connection:
            if await queries.state(connection, id=plan_id) == "aborted":
                raise _aborted(plan_id)
            rows = [row async for row in queries.next_batch(connection, plan_id=plan_id, limit=size)]
            results, facts = await self._decide(connection, rows, reason)
            positions = [row["position"] for row in rows]
            now = self.cancellation.clock.now()
            await queries.note_done(connection, plan_id=plan_id, positions=positions, results=results, now=now)
            counts = Counter(results)
            if rows:
                effects = {"positions": f"{positions[0]} to {positions[-1]}", **counts}
                await note(connection, Act("job.cancel", f"plan {plan_id}", reason, effects))
        telemetry.JOBS.labels("cancelled").inc(len(facts))
        if facts:
            log.info("job.cancelled", plan=str(plan_id), jobs=len(facts))
            await self.cancellation.tell(facts)
        return counts

    async def _decide(self, connection: Connection, rows: Sequence[Any], reason: str) -> tuple[list[str], list[Record]]:
        """Decide that runs are cancelled where they may be; return what became of each, and the facts to publish."""
        now = self.cancellation.clock.now()
        asked: dict[tuple[JobId, int], JobCancelled] = {}
        for row in rows:
            if _refusal(row) is None:
                job_id = JobId(row["job_id"])
                asked[job_id, row["run"]] = cancelled_fact(job_id, row["run"], row["owner"], reason, at=now)
        decided = await cancel_runs(connection, list(asked.values()), at=now) if asked else {}
        results = [_refusal(row) or decided[JobId(row["job_id"]), row["run"]].outcome for row in rows]
        return results, [end.fact for end in decided.values() if end.outcome == "cancelled" and end.fact is not None]


def _refusal(row: Any) -> str | None:  # noqa: ANN401 - a row of Postgres
    """Return why a job is not cancelled; None: it may be."""
    if not row["is_ours"] or row["owner"] is None:
        return "not_cancellable"
    return "moved_on" if row["latest_run"] > row["run"] else row["latest_outcome"]


def _busy(plan_id: UUID) -> Refused:
    return Refused(
        "plan_busy", f"plan {plan_id}: somebody else is applying it now; `teamfit cancel status` shows how far"
    )


def _aborted(plan_id: UUID) -> Refused:
    return Refused("plan_aborted", f"plan {plan_id}: was aborted; make a new one for what is left")
