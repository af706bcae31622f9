"""Many failed events are discarded by a plan: see `frozen_plans.py`.

The set is the open failed events that a filter finds, each with how often it had failed. One that has failed again
meanwhile, or that somebody else has dealt with, is left as it is. Nothing is published.
"""

from datetime import datetime
from typing import Final, TypeAlias, Unpack
from uuid import UUID

from pydantic import BaseModel, Field

from infra.actions import current_actor
from infra.operations.frozen_plans import Effects, FrozenPlan, FrozenPlans, FrozenPlanSummary, Kind, statements
from infra.operations.plan_applying import Batch, Done, How, apply_plan
from infra.postgres import Connection, Database, plan_for_values
from producers.replay.failed import Filter
from streams.delivery.failed_events import discard

MOST_CHOSEN = 500

_queries = statements(
    "discard", counted="events", done="discarded", member="failed_event_id::text || ' ' || occurrences"
)


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


class DiscardEffects(Effects):
    """These effects of a plan were shown."""

    events: int
    jobs: int = Field(description="Jobs that they are about. Their status stays, and no plan replays these failures.")
    kinds: list[DiscardedKind] = Field(description="The most frequent first.")
    organizations: list[DiscardedOf] = Field(description="Those with most events first.")


class DiscardPlan(FrozenPlan[DiscardChoice, DiscardEffects]):
    """A plan, and how far it is."""

    DONE = "discarded"

    digest: str = Field(description="SHA-256 of the set: each event and how often it had failed, in the plan's order.")
    left: int = Field(description="Events whose turn has not come.")
    discarded: int = Field(description="Events that the plan has discarded; others had changed.")


class DiscardPlanSummary(FrozenPlanSummary[DiscardChoice]):
    """A plan as a list shows it."""

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


DiscardPlans: TypeAlias = FrozenPlans[DiscardChoice, DiscardPlan, DiscardPlanSummary, DiscardPlanPage]


def discard_plans(database: Database) -> DiscardPlans:
    """Return the plans of discards."""
    return FrozenPlans(database, _KIND)


async def apply_discards(database: Database, plan_id: UUID, **how: Unpack[How]) -> DiscardPlan:
    """Discard what is left of a plan; see `apply_plan`. The rate is failed events."""
    return await apply_plan(discard_plans(database), plan_id, _discard, **how)


async def _discard(connection: Connection, batch: Batch) -> Done:
    ids, times = [row["failed_event_id"] for row in batch.rows], [row["occurrences"] for row in batch.rows]
    by = current_actor().name
    discarded = {*await discard(connection, ids, times, because=batch.reason, by=by, now=batch.now)}
    return Done(["discarded" if one in discarded else "changed" for one in ids])


async def _freeze(connection: Connection, plan_id: UUID, chosen: DiscardChoice) -> None:
    chosen.require_known()
    await plan_for_values(connection)
    await _queries.freeze(connection, plan_id=plan_id, **chosen.model_dump())


async def _effects_of(connection: Connection, plan_id: UUID) -> DiscardEffects:
    kinds = [DiscardedKind(**row) async for row in _queries.kinds(connection, plan_id=plan_id)]
    each = [DiscardedOf(**row) async for row in _queries.organizations(connection, plan_id=plan_id)]
    return DiscardEffects(
        events=sum(one.events for one in kinds), jobs=sum(one.jobs for one in each), kinds=kinds, organizations=each
    )


_KIND: Final = Kind(
    command="discard",
    action="failed.discard",
    because="it stays on record",
    longest_reason=1_000,
    plan=DiscardPlan,
    summary=DiscardPlanSummary,
    page=DiscardPlanPage,
    queries=_queries,
    freeze=_freeze,
    effects_of=_effects_of,
    results=("discarded", "changed"),
)
