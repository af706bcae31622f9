"""The operators' routes by which many jobs are cancelled: plan, look, apply."""

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
from infra.operations.cancel_plans import CancelApplier, CancelPlan, CancelPlanPage, CancelPlanSummary, cancel_plans
from infra.operations.job_search import JobFilter, Term
from infra.postgres import Database
from producers.cancel.cancellation import Cancellation
from producers.turns import Turns
from streams.delivery.interfaces import Publisher


class CancelApply(BaseModel):
    """The body says why, and how fast."""

    model_config = ConfigDict(extra="forbid")

    because: Term = Field(max_length=500, description="Why; the customers read it. What was said first holds.")
    rate: float = Field(default=500, ge=1, le=10_000, description="Jobs per second.")


def create_router(database: Database, publisher: Publisher, tokens: Tokens) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/ops/cancel/plans", tags=["operators"])
    operator = Authenticated(tokens, scope=OPERATOR, logs=database)
    plans = cancel_plans(database)
    applier = CancelApplier(Cancellation(database, publisher, database.clock))
    heavy = Turns(1)

    @router.post("", status_code=HTTPStatus.CREATED, responses=MAKE)
    async def make_cancel_plan(chosen: JobFilter, caller: Annotated[Caller, Depends(operator)]) -> CancelPlan:
        """Freeze the live jobs that a filter finds, and say what would follow. None is cancelled."""
        async with heavy.one():
            return await plans.make(chosen, by=caller.subject)

    @router.get("", responses=READ, dependencies=[Depends(operator)])
    async def list_cancel_plans(query: Annotated[PlansQuery, Query()]) -> Sequence[CancelPlanSummary]:
        """List plans, the latest first."""
        return await plans.latest(limit=query.limit, before=query.before)

    @router.get("/{plan_id}", responses=PLAN, dependencies=[Depends(operator)])
    async def show_cancel_plan(plan_id: UUID, query: Annotated[ItemsQuery, Query()]) -> CancelPlanPage:
        """Return a plan, how far it is, and a page of its jobs."""
        return await plans.page(plan_id, after=query.after, limit=query.limit)

    @router.post("/{plan_id}/apply", responses=APPLY, dependencies=[Depends(operator)])
    async def apply_cancel_plan(plan_id: UUID, body: CancelApply) -> CancelPlan:
        """Cancel jobs of a plan for at most ten seconds. Repeat the call until the plan's state is `finished`.

        Nothing runs on in between, so not calling again is how to stop. A finished plan is returned as it is.
        """
        async with heavy.one():
            return await applier.apply(plan_id, because=body.because, rate=body.rate, at_most=APPLY_AT_MOST)

    @router.post("/{plan_id}/abort", responses=PLAN, dependencies=[Depends(operator)])
    async def abort_cancel_plan(plan_id: UUID) -> CancelPlan:
        """End a plan before its time; what it has cancelled stays so."""
        return await plans.abort(plan_id)

    return router
