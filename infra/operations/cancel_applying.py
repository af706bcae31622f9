"""One process at a time applies a plan of cancellations, at a rate. Stopped anywhere, it can go on.

A batch is one transaction: the runs are decided as cancelled, what became of each job is noted in the plan, and the log
of actions has a line. Then their facts are published. If the process dies
- before the commit: the batch is done again, and nothing of it had happened;
- after the commit: the jobs are cancelled and noted, and the reconciler publishes their facts, as it does for a single
  cancellation.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Unpack
from uuid import UUID

import structlog

from infra import telemetry
from infra.actions import Act, note
from infra.operations.cancel_plans import CancelPlan, digest_of, queries, read_cancel_plan
from infra.operations.plan_applying import How, Undertaking
from infra.postgres import Connection
from producers.cancel.cancellation import Cancellation
from streams.delivery.deliveries import Record
from streams.jobs.cancellations import cancel_runs, cancelled_fact
from streams.jobs.events import JobCancelled, JobId

log = structlog.get_logger(__name__)

_UNDERTAKING: Final[Undertaking[CancelPlan]] = Undertaking(
    command="cancel",
    for_whom="the customers read it",
    longest_reason=500,
    queries=queries,
    read=read_cancel_plan,
    digest_of=digest_of,
    told=lambda plan: {"state": plan.state, "cancelled": plan.cancelled, "left": plan.left},
)


@dataclass(frozen=True, slots=True)
class CancelApplier:
    """Applies plans of cancellations."""

    cancellation: Cancellation

    async def apply(self, plan_id: UUID, **how: Unpack[How]) -> CancelPlan:
        """Cancel what is left of a plan; see `Undertaking.apply`. The customers read why, and the rate is jobs."""
        return await _UNDERTAKING.apply(
            self.cancellation.database, plan_id, lambda reason, most: self._batch(plan_id, reason, most), **how
        )

    async def _batch(self, plan_id: UUID, reason: str, size: int) -> Counter[str]:
        """Cancel the next jobs; return what became of them."""
        async with self.cancellation.database.transaction() as connection:
            await _UNDERTAKING.refuse_aborted(connection, plan_id)
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
