"""The operators' routes by which many failed events are discarded: plan, look, apply."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from infra.api.bearer import Authenticated
from infra.api.plan_routes import APPLY, APPLY_AT_MOST, MAKE, PLAN, READ, ItemsQuery, PlansQuery
from infra.auth import OPERATOR, Caller
from infra.identity import Tokens
from infra.operations.discard_plans import (
    DiscardChoice,
    DiscardPlan,
    DiscardPlanPage,
    DiscardPlanSummary,
    apply_discards,
    discard_plans,
)
from infra.operations.job_search import Term
from infra.postgres import Database
from producers.turns import Turns


class DiscardApply(BaseModel):
    """The body says why, and how fast."""

    model_config = ConfigDict(extra="forbid")

    because: Term = Field(description="Why, for those who ask later. What was said first holds.")
    rate: float = Field(default=500, ge=1, le=10_000, description="Events per second.")


def create_router(database: Database, tokens: Tokens) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/ops/discard/plans", tags=["operators"])
    operator = Authenticated(tokens, scope=OPERATOR, logs=database)
    plans = discard_plans(database)
    heavy = Turns(1)

    @router.post("", status_code=HTTPStatus.CREATED, responses=MAKE)
    async def make_discard_plan(chosen: DiscardChoice, caller: Annotated[Caller, Depends(operator)]) -> DiscardPlan:
        """Freeze the open failed events that a filter finds, and say what would follow. None is discarded."""
        async with heavy.one():
            return await plans.make(chosen, by=caller.subject)

    @router.get("", responses=READ, dependencies=[Depends(operator)])
    async def list_discard_plans(query: Annotated[PlansQuery, Query()]) -> Sequence[DiscardPlanSummary]:
        """List plans, the latest first."""
        return await plans.latest(limit=query.limit, before=query.before)

    @router.get("/{plan_id}", responses=PLAN, dependencies=[Depends(operator)])
    async def show_discard_plan(plan_id: UUID, query: Annotated[ItemsQuery, Query()]) -> DiscardPlanPage:
        """Return a plan, how far it is, and a page of its events."""
        return await plans.page(plan_id, after=query.after, limit=query.limit)

    @router.post("/{plan_id}/apply", responses=APPLY, dependencies=[Depends(operator)])
    async def apply_discard_plan(plan_id: UUID, body: DiscardApply) -> DiscardPlan:
        """Discard events of a plan for at most ten seconds. Repeat the call until the plan's state is `finished`.

        Nothing runs on in between, so not calling again is how to stop. A finished plan is returned as it is.
        """
        async with heavy.one():
            return await apply_discards(database, plan_id, because=body.because, rate=body.rate, at_most=APPLY_AT_MOST)

    @router.post("/{plan_id}/abort", responses=PLAN, dependencies=[Depends(operator)])
    async def abort_discard_plan(plan_id: UUID) -> DiscardPlan:
        """End a plan before its time; what it has discarded stays so."""
        return await plans.abort(plan_id)

    return router
