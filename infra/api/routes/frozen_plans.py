"""The operators' routes of plans: many jobs are cancelled, many failed events discarded. Plan, look, apply."""

from collections.abc import Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from infra.api.caller import Authenticated
from infra.api.problems import BODY, TOKEN, responses
from infra.auth import OPERATOR, Caller
from infra.clock import Moment
from infra.identity import Tokens
from infra.operations.cancel_plans import CancelApplier, CancelPlan, CancelPlanPage, CancelPlanSummary, cancel_plans
from infra.operations.discard_plans import (
    DiscardChoice,
    DiscardPlan,
    DiscardPlanPage,
    DiscardPlanSummary,
    apply_discards,
    discard_plans,
)
from infra.operations.job_search import JobFilter, Term
from infra.postgres import Database
from producers.cancellation import Cancellation
from producers.turns import Turns
from streams.delivery.interfaces import Publisher

# A request must not outlive the time that proxies give it; the caller asks again until the plan has ended.
APPLY_AT_MOST: Final = timedelta(seconds=10)
_LARGEST_PAGE: Final = 500
_LAST_POSITION: Final = 2**31 - 1
_READ: Final = (*TOKEN, "invalid_request", "database_unavailable")
_WRITE: Final = (*TOKEN, *BODY, "too_busy", "database_unavailable")
READ: Final = responses(*_READ)
MAKE: Final = responses(*_WRITE)
PLAN: Final = responses(*_READ, "plan_not_found")
APPLY: Final = responses(*_WRITE, "plan_not_found", "plan_busy", "plan_changed", "plan_aborted")


class PlansQuery(BaseModel):
    """The query for the list of plans."""

    model_config = ConfigDict(extra="forbid")

    before: Moment | None = Field(default=None, description="Made before this time.")
    limit: int = Field(default=50, ge=1, le=_LARGEST_PAGE)


class ItemsQuery(BaseModel):
    """The query for a plan: the page of its items."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(default=0, ge=0, le=_LAST_POSITION, description="The `position` where the page before ended.")
    limit: int = Field(default=100, ge=0, le=_LARGEST_PAGE)


class CancelApply(BaseModel):
    """The body says why, and how fast."""

    model_config = ConfigDict(extra="forbid")

    because: Term = Field(max_length=500, description="Why; the customers read it. What was said first holds.")
    rate: float = Field(default=500, ge=1, le=10_000, description="Jobs per second.")


def create_cancel_router(database: Database, publisher: Publisher, tokens: Tokens) -> APIRouter:
    """Return the routes by which jobs are cancelled."""
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


class DiscardApply(BaseModel):
    """The body says why, and how fast."""

    model_config = ConfigDict(extra="forbid")

    because: Term = Field(description="Why, for those who ask later. What was said first holds.")
    rate: float = Field(default=500, ge=1, le=10_000, description="Events per second.")


def create_discard_router(database: Database, tokens: Tokens) -> APIRouter:
    """Return the routes by which failed events are discarded."""
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
