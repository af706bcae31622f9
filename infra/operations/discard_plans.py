"""A plan discards many failed events. Its set is frozen, and its effects are shown first.

Making a plan writes down the open failed events that a filter finds, each with how often it had failed, and discards
none. The digest says which set that is: whoever applies the plan discards it and no other event. One that has failed
again meanwhile, or that somebody else has dealt with, is left as it is.
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
from infra.postgres import Connection, Database, plan_for_values
from producers.replay.failed import Filter

queries = aiosql.from_path(Path(__file__).with_name("discard_plans.sql"), "asyncpg")

DiscardPlanState: TypeAlias = Literal["planned", "applying", "finished", "aborted"]
MOST_CHOSEN = 500


class DiscardChoice(Filter):
    """A choice of open failed events. They fit every given field, and are listed if any are."""

    failed_events: list[UUID] | None = Field(default=None, max_length=MOST_CHOSEN, description="Only these.")


class DiscardedKind(BaseModel):
    """Failed events of one stage and error."""

    stage: str
    error_type: str
    events: int


class DiscardedOf(BaseModel):
    """An organization's failed events, and the jobs that they are about."""

    organization_id: str | None
    events: int
    jobs: int


class DiscardEffects(BaseModel):
    """These effects of a plan were shown."""

    events: int
    jobs: int = Field(description="Jobs that they are about. Their status stays, and no plan replays these failures.")
    kinds: list[DiscardedKind] = Field(description="The most frequent first.")
    organizations: list[DiscardedOf] = Field(description="Those with most events first.")


class DiscardPlan(BaseModel):
    """A plan, and how far it is."""

    id: UUID
    state: DiscardPlanState
    filters: DiscardChoice
    effects: DiscardEffects
    digest: str = Field(description="SHA-256 of the set: each event and how often it had failed, in the plan's order.")
    reason: str | None = Field(description="Why, once somebody has applied it.")
    created_by: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    total: int
    left: int = Field(description="Events whose turn has not come.")
    discarded: int = Field(description="Events that the plan has discarded; others had changed.")


class DiscardPlanSummary(BaseModel):
    """A plan as a list shows it."""

    id: UUID
    state: DiscardPlanState
    filters: DiscardChoice
    created_by: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    events: int


class DiscardPlanItem(BaseModel):
    """One event of a plan. `result` is `discarded`, or `changed`: it failed again, or somebody dealt with it."""

    position: int
    failed_event_id: UUID
    result: str | None
    done_at: datetime | None
    stage: str | None
    error_type: str | None
    organization_id: str | None
    job_id: UUID | None


class DiscardPlanPage(DiscardPlan):
    """A plan, and a page of its events."""

    items: list[DiscardPlanItem]


class UnknownDiscardPlan(Refused):
    """There is no plan with this ID."""

    def __init__(self, plan_id: UUID) -> None:
        super().__init__("plan_not_found", f"plan {plan_id}: not found; make one with `teamfit discard plan`")


@dataclass(frozen=True, slots=True)
class DiscardPlans:
    """The plans in Postgres. Each method raises DependencyDown when it is away."""

    database: Database

    async def make(self, chosen: DiscardChoice, *, by: str) -> DiscardPlan:
        """Freeze the open failed events that a filter finds. Nothing but the plan is written."""
        plan_id = uuid4()
        filters = chosen.model_dump(mode="json", exclude_none=True)
        act = Act("discard.plan", f"plan {plan_id}")
        async with acting(self.database, act) as connection:
            now = self.database.clock.now()
            await plan_for_values(connection)
            await queries.add_plan(connection, id=plan_id, filters=filters, created_by=by, now=now)
            await queries.freeze(connection, plan_id=plan_id, **chosen.model_dump())
            await queries.analyze_items(connection)
            effects = await _effects_of(connection, plan_id)
            digest = await digest_of(connection, plan_id)
            await queries.set_effects(connection, id=plan_id, effects=effects.model_dump(mode="json"), digest=digest)
            act.effects = {"events": effects.events, "jobs": effects.jobs, "filters": filters, "digest": digest}
            return await read_discard_plan(connection, plan_id)

    async def get(self, plan_id: UUID) -> DiscardPlan:
        """Return a plan. Raises UnknownDiscardPlan."""
        async with self.database.transaction() as connection:
            return await read_discard_plan(connection, plan_id)

    async def latest(self, *, limit: int = 50, before: datetime | None = None) -> Sequence[DiscardPlanSummary]:
        """Return plans, the latest first, made before a time."""
        async with self.database.transaction() as connection:
            return [DiscardPlanSummary(**row) async for row in queries.latest(connection, limit=limit, before=before)]

    async def page(self, plan_id: UUID, *, after: int = 0, limit: int = 100) -> DiscardPlanPage:
        """Return a plan and its events after a position. Raises UnknownDiscardPlan."""
        async with self.database.transaction() as connection:
            plan = await read_discard_plan(connection, plan_id)
            rows = queries.items(connection, plan_id=plan_id, after=after, limit=limit)
            return DiscardPlanPage(**dict(plan), items=[DiscardPlanItem(**row) async for row in rows])

    async def abort(self, plan_id: UUID) -> DiscardPlan:
        """End a plan before its time; what it has discarded stays so. One that has ended stays as it is.

        Whoever is applying it stops before its next batch. Raises UnknownDiscardPlan.
        """
        act = Act("discard.abort", f"plan {plan_id}")
        async with acting(self.database, act) as connection:
            await queries.end(connection, id=plan_id, state="aborted", now=self.database.clock.now())
            plan = await read_discard_plan(connection, plan_id)
            act.effects = {"state": plan.state, "discarded": plan.discarded, "left": plan.left}
            return plan


async def read_discard_plan(connection: Connection, plan_id: UUID) -> DiscardPlan:
    """Read a plan in the caller's transaction. Raises UnknownDiscardPlan."""
    row = await queries.plan(connection, id=plan_id)
    if row is None:
        raise UnknownDiscardPlan(plan_id)
    return DiscardPlan(**row)


async def digest_of(connection: Connection, plan_id: UUID) -> str:
    """Return the digest of a plan's set as it stands."""
    return str(await queries.digest_of(connection, plan_id=plan_id))


async def _effects_of(connection: Connection, plan_id: UUID) -> DiscardEffects:
    kinds = [DiscardedKind(**row) async for row in queries.kinds(connection, plan_id=plan_id)]
    each = [DiscardedOf(**row) async for row in queries.organizations(connection, plan_id=plan_id)]
    return DiscardEffects(
        events=sum(one.events for one in kinds), jobs=sum(one.jobs for one in each), kinds=kinds, organizations=each
    )
