"""Many jobs are cancelled by a plan: see `frozen_plans.py`.

The set is the jobs that a filter finds and that have not ended, with their runs. Nothing is deleted, so this is how a
backlog is purged.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias, Unpack
from uuid import UUID

from pydantic import BaseModel, Field

from infra.operations.frozen_plans import Effects, FrozenPlan, FrozenPlans, FrozenPlanSummary, Kind, statements
from infra.operations.job_search import JobFilter, values_of
from infra.operations.job_statements import filtered
from infra.operations.plan_applying import Batch, Done, How, apply_plan
from infra.postgres import Connection, Database
from producers.cancellation import Cancellation
from streams.jobs.cancellations import cancel_runs, cancelled_fact
from streams.jobs.events import JobCancelled, JobId

_queries = statements("cancel", counted="jobs", done="cancelled", member="job_id::text || ' ' || run")
_items = filtered("cancel_items.sql")


class OrganizationEffects(BaseModel):
    """A plan would do this to one organization's jobs."""

    organization_id: str | None
    jobs: int
    processing: int = Field(description="Jobs that are worked on; a call to the LLM that is under way is paid.")
    quota: int = Field(description="Units of quota that are released.")


class CancelEffects(Effects):
    """These effects of a plan were shown."""

    jobs: int
    processing: int
    quota: int
    organizations: list[OrganizationEffects] = Field(description="Those with most jobs first.")

    def in_short(self) -> dict[str, int]:
        """Return the numbers, that of organizations too."""
        return {**super().in_short(), "organizations": len(self.organizations)}


class CancelPlan(FrozenPlan[JobFilter, CancelEffects]):
    """A plan, and how far it is."""

    DONE = "cancelled"

    digest: str = Field(description="SHA-256 of the set: each job and run in the plan's order.")
    reason: str | None = Field(description="Why, once somebody has applied it; the customers read it.")
    left: int = Field(description="Jobs whose turn has not come.")
    cancelled: int = Field(description="Jobs that the plan has cancelled; others had ended or begun anew.")


class CancelPlanSummary(FrozenPlanSummary[JobFilter]):
    """A plan as a list shows it."""

    jobs: int


class CancelPlanItem(BaseModel):
    """One job of a plan. `result` is `cancelled`, or how the job had ended, `moved_on` or `not_cancellable`."""

    position: int
    job_id: UUID
    organization_id: str | None
    run: int
    result: str | None
    done_at: datetime | None


class CancelPlanPage(CancelPlan):
    """A plan, and a page of its jobs."""

    items: list[CancelPlanItem]


CancelPlans: TypeAlias = FrozenPlans[JobFilter, CancelPlan, CancelPlanSummary, CancelPlanPage]


def cancel_plans(database: Database) -> CancelPlans:
    """Return the plans of cancellations."""
    return FrozenPlans(database, _KIND)


@dataclass(frozen=True, slots=True)
class CancelApplier:
    """Applies plans of cancellations.

    A batch decides that its runs are cancelled. Once that is committed, their facts are published; if the process dies
    in between, the reconciler does it, as it does for a single cancellation.
    """

    cancellation: Cancellation

    async def apply(self, plan_id: UUID, **how: Unpack[How]) -> CancelPlan:
        """Cancel what is left of a plan; see `apply_plan`. The customers read why, and the rate is jobs."""
        return await apply_plan(cancel_plans(self.cancellation.database), plan_id, self._cancel, **how)

    async def _cancel(self, connection: Connection, batch: Batch) -> Done:
        """Decide that runs are cancelled where they may be."""
        asked: dict[tuple[JobId, int], JobCancelled] = {}
        for row in batch.rows:
            if _refusal(row) is None:
                job_id = JobId(row["job_id"])
                asked[job_id, row["run"]] = cancelled_fact(job_id, row["run"], row["owner"], batch.reason, at=batch.now)
        decided = await cancel_runs(connection, list(asked.values()), at=batch.now) if asked else {}
        results = [_refusal(row) or decided[JobId(row["job_id"]), row["run"]].outcome for row in batch.rows]
        facts = [end.fact for end in decided.values() if end.outcome == "cancelled" and end.fact is not None]
        return Done(results, lambda: self.cancellation.tell_of_many(facts, plan=str(batch.plan_id)))


def _refusal(row: Any) -> str | None:  # noqa: ANN401 - a row of Postgres
    """Return why a job is not cancelled; None: it may be."""
    if not row["is_ours"] or row["owner"] is None:
        return "not_cancellable"
    return "moved_on" if row["latest_run"] > row["run"] else row["latest_outcome"]


async def _freeze(connection: Connection, plan_id: UUID, chosen: JobFilter) -> None:
    values = {"words": None, **await values_of(connection, chosen)}
    await _items.freeze(connection, plan_id=plan_id, **values)


async def _effects_of(connection: Connection, plan_id: UUID) -> CancelEffects:
    each = [OrganizationEffects(**row) async for row in _queries.effects_of(connection, plan_id=plan_id)]
    return CancelEffects(
        jobs=sum(one.jobs for one in each),
        processing=sum(one.processing for one in each),
        quota=sum(one.quota for one in each),
        organizations=each,
    )


_KIND: Final = Kind(
    command="cancel",
    action="job.cancel",
    because="the customers read it",
    longest_reason=500,
    plan=CancelPlan,
    summary=CancelPlanSummary,
    page=CancelPlanPage,
    queries=_queries,
    freeze=_freeze,
    effects_of=_effects_of,
)
