"""A plan cancels many jobs: its set is frozen, and its effects are shown first.

Making a plan writes down the jobs that a filter finds and that have not ended, with their runs, and cancels none. The
digest says which set that is: whoever applies the plan cancels it and no other job, however many have come since.
Nothing is deleted, so this is how a backlog is purged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias
from uuid import UUID, uuid4

import aiosql
from pydantic import BaseModel, Field

from infra.actions import Act, acting
from infra.errors import Refused
from infra.operations.job_search import JobFilter, filtered, values_of
from infra.postgres import Connection, Database

queries = aiosql.from_path(Path(__file__).with_name("cancel_plans.sql"), "asyncpg")
_items = filtered("cancel_items.sql")

CancelPlanState: TypeAlias = Literal["planned", "applying", "finished", "aborted"]


class OrganizationEffects(BaseModel):
    """A plan would do this to one organization's jobs."""

    organization_id: str | None
    jobs: int
    processing: int = Field(description="Jobs that are worked on; a call to the LLM that is under way is paid.")
    quota: int = Field(description="Units of quota that are released.")


class CancelEffects(BaseModel):
    """These effects of a plan were shown."""

    jobs: int
    processing: int
    quota: int
    organizations: list[OrganizationEffects] = Field(description="Those with most jobs first.")


class CancelPlan(BaseModel):
    """A plan, and how far it is."""

    id: UUID
    state: CancelPlanState
    filters: JobFilter
    effects: CancelEffects
    digest: str = Field(description="SHA-256 of the set: each job and run in the plan's order.")
    reason: str | None = Field(description="Why, once somebody has applied it; the customers read it.")
    created_by: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    total: int
    left: int = Field(description="Jobs whose turn has not come.")
    cancelled: int = Field(description="Jobs that the plan has cancelled; others had ended or begun anew.")


class CancelPlanSummary(BaseModel):
    """A plan as a list shows it."""

    id: UUID
    state: CancelPlanState
    filters: JobFilter
    created_by: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
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


class UnknownCancelPlan(Refused):
    """There is no plan with this ID."""

    def __init__(self, plan_id: UUID) -> None:
        super().__init__("plan_not_found", f"plan {plan_id}: not found; make one with `teamfit cancel plan`")


@dataclass(frozen=True, slots=True)
class CancelPlans:
    """The plans in Postgres. Each method raises DependencyDown when it is away."""

    database: Database

    async def make(self, chosen: JobFilter, *, by: str) -> CancelPlan:
        """Freeze the jobs that a filter finds and that have not ended. Nothing but the plan is written."""
        plan_id = uuid4()
        filters = chosen.model_dump(mode="json", exclude_none=True)
        act = Act("cancel.plan", f"plan {plan_id}")
        async with acting(self.database, act) as connection:
            now = self.database.clock.now()
            await queries.add_plan(connection, id=plan_id, filters=filters, created_by=by, now=now)
            values = {"words": None, **await values_of(connection, chosen)}
            await _items.freeze(connection, plan_id=plan_id, **values)
            await queries.analyze_items(connection)
            effects = await _effects_of(connection, plan_id)
            digest = await digest_of(connection, plan_id)
            await queries.set_effects(connection, id=plan_id, effects=effects.model_dump(mode="json"), digest=digest)
            shown = effects.model_dump(include={"jobs", "processing", "quota"})
            act.effects = {**shown, "organizations": len(effects.organizations), "filters": filters, "digest": digest}
            return await read_cancel_plan(connection, plan_id)

    async def get(self, plan_id: UUID) -> CancelPlan:
        """Return a plan. Raises UnknownCancelPlan."""
        async with self.database.transaction() as connection:
            return await read_cancel_plan(connection, plan_id)

    async def latest(self, *, limit: int = 50, before: datetime | None = None) -> Sequence[CancelPlanSummary]:
        """Return plans, the latest first, made before a time."""
        async with self.database.transaction() as connection:
            return [CancelPlanSummary(**row) async for row in queries.latest(connection, limit=limit, before=before)]

    async def page(self, plan_id: UUID, *, after: int = 0, limit: int = 100) -> CancelPlanPage:
        """Return a plan and its jobs after a position. Raises UnknownCancelPlan."""
        async with self.database.transaction() as connection:
            plan = await read_cancel_plan(connection, plan_id)
            rows = queries.items(connection, plan_id=plan_id, after=after, limit=limit)
            return CancelPlanPage(**dict(plan), items=[CancelPlanItem(**row) async for row in rows])

    async def abort(self, plan_id: UUID) -> CancelPlan:
        """End a plan before its time; what it has cancelled stays so. One that has ended stays as it is.

        Whoever is applying it stops before its next batch. Raises UnknownCancelPlan.
        """
        act = Act("cancel.abort", f"plan {plan_id}")
        async with acting(self.database, act) as connection:
            await queries.end(connection, id=plan_id, state="aborted", now=self.database.clock.now())
            plan = await read_cancel_plan(connection, plan_id)
            act.effects = {"state": plan.state, "cancelled": plan.cancelled, "left": plan.left}
            return plan


async def read_cancel_plan(connection: Connection, plan_id: UUID) -> CancelPlan:
    """Read a plan in the caller's transaction. Raises UnknownCancelPlan."""
    row = await queries.plan(connection, id=plan_id)
    if row is None:
        raise UnknownCancelPlan(plan_id)
    return CancelPlan(**row)


async def digest_of(connection: Connection, plan_id: UUID) -> str:
    """Return the digest of a plan's set as it stands."""
    return str(await queries.digest_of(connection, plan_id=plan_id))


async def _effects_of(connection: Connection, plan_id: UUID) -> CancelEffects:
    each = [OrganizationEffects(**row) async for row in queries.effects_of(connection, plan_id=plan_id)]
    return CancelEffects(
        jobs=sum(one.jobs for one in each),
        processing=sum(one.processing for one in each),
        quota=sum(one.quota for one in each),
        organizations=each,
    )
