"""The operators' routes: failed events, and plans of replays."""

from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from infra.api.caller import Authenticated
from infra.api.problems import BODY, TOKEN, Problem, responses
from infra.api.routes.frozen_plans import READ, PlansQuery
from infra.auth import OPERATOR, Caller
from infra.identity import Tokens
from infra.postgres import Database
from producers.replay.apply import Replays
from producers.replay.failed import (
    FailedEventDetails,
    FailedEventPage,
    FailedEvents,
    Filter,
    Place,
    Term,
)
from producers.replay.failed_groups import FailedGroups, read_groups
from producers.replay.plans import Plan, PlanPage, Plans, PlanSummary
from producers.turns import Turns
from streams.delivery.interfaces import Publisher

# A request must not outlive the time that proxies give it; the caller asks again until the plan has ended.
_APPLY_AT_MOST = timedelta(seconds=10)
_WAIT_FOR_QUOTA = timedelta(seconds=5)
_LARGEST_PAGE = 500


_READ = (*TOKEN, "invalid_request", "database_unavailable")
_FAILED_EVENT = responses(*_READ, "failed_event_not_found")
_PLAN = responses(*_READ, "plan_not_found")
_WRITE = (*TOKEN, *BODY, "database_unavailable")
_APPLY = responses(
    *_WRITE,
    "broker_unavailable",
    "too_busy",
    "plan_not_found",
    "plan_busy",
    "plan_changed",
    "plan_aborted",
    "quota_not_released",
)


class FailedEventsQuery(Filter):
    """The query of the list of failed events: filter, state and page."""

    state: Literal["open", "replayed", "discarded", "all"] = "open"
    limit: int = Field(default=50, ge=1, le=_LARGEST_PAGE)
    after: str | None = Field(default=None, description="`next` of the page before.")


class FailedGroupsQuery(Filter):
    """The query of the groups of failed events: filter and state."""

    state: Literal["open", "replayed", "discarded", "all"] = "open"


class PlanItemsQuery(BaseModel):
    """The query for one page of a plan's events."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(default=0, ge=0, le=2**31 - 1, description="Position of the last item seen.")
    limit: int = Field(default=100, ge=1, le=_LARGEST_PAGE)


class Discard(BaseModel):
    """The reason why a failed event is set aside for good."""

    model_config = ConfigDict(extra="forbid")

    because: Term = Field(min_length=1, max_length=1_000)


class Apply(BaseModel):
    """The rate at which a plan's events are sent."""

    model_config = ConfigDict(extra="forbid")

    rate: float = Field(ge=1, le=10_000, description="Events per second.")


def create_router(database: Database, publisher: Publisher, tokens: Tokens) -> APIRouter:
    """Return the operators' routes. They see every organization's events, so they ask for the scope `operator`."""
    router = APIRouter(prefix="/api/ops", tags=["operators"])
    authenticated = Authenticated(tokens, scope=OPERATOR, logs=database)
    _add_failed_groups(router, authenticated, database)  # before `/failed/{id}`, which fits its path too
    _add_failed_events(router, authenticated, FailedEvents(database, database.clock))
    replays = Replays(database, publisher, database.clock, release_limit=_WAIT_FOR_QUOTA)
    _add_plans(router, authenticated, Plans(database, database.clock), replays)
    return router


def _add_failed_groups(router: APIRouter, authenticated: Authenticated, database: Database) -> None:
    @router.get("/failed/groups", responses=responses(*_READ), dependencies=[Depends(authenticated)])
    async def group_failed(query: Annotated[FailedGroupsQuery, Query()]) -> FailedGroups:
        """Group the latest 10,000 failed events by stage, error and message, the largest group first."""
        chosen = Filter(**query.model_dump(include=set(Filter.model_fields)))
        return await read_groups(database, chosen, state=None if query.state == "all" else query.state)


def _add_failed_events(router: APIRouter, authenticated: Authenticated, failed: FailedEvents) -> None:
    @router.get("/failed", responses=responses(*_READ), dependencies=[Depends(authenticated)])
    async def list_failed(query: Annotated[FailedEventsQuery, Query()]) -> FailedEventPage:
        """List failed events, the latest first."""
        chosen = Filter(**query.model_dump(include=set(Filter.model_fields)))
        state = None if query.state == "all" else query.state
        return await failed.page(chosen, state=state, limit=query.limit, after=_place(query.after))

    @router.get(
        "/failed/{failed_event_id}",
        responses=_FAILED_EVENT,
        dependencies=[Depends(authenticated)],
    )
    async def show_failed(failed_event_id: UUID) -> FailedEventDetails:
        """Return everything about one failed event."""
        return await failed.one(failed_event_id)

    @router.post("/failed/{failed_event_id}/discard", responses=responses(*_WRITE, "failed_event_not_found"))
    async def discard_failed(
        failed_event_id: UUID, body: Discard, caller: Annotated[Caller, Depends(authenticated)]
    ) -> FailedEventDetails:
        """Set a failed event aside for good. It stays on record; one that was dealt with before stays as it is."""
        found = await failed.find_one(failed_event_id)
        await failed.discard(found, because=body.because, by=caller.subject)
        return await failed.one(failed_event_id)


def _add_plans(router: APIRouter, authenticated: Authenticated, plans: Plans, replays: Replays) -> None:
    heavy = Turns(1)

    @router.post("/replay/plans", status_code=HTTPStatus.CREATED, responses=responses(*_WRITE, "too_busy"))
    async def make_plan(chosen: Filter, caller: Annotated[Caller, Depends(authenticated)]) -> Plan:
        """Plan the replay of the open failed events that a filter finds, and say what would follow. Nothing is sent."""
        async with heavy.one():
            return await plans.make(chosen, by=caller.subject)

    @router.get("/replay/plans", responses=READ, dependencies=[Depends(authenticated)])
    async def list_replay_plans(query: Annotated[PlansQuery, Query()]) -> list[PlanSummary]:
        """List plans, the latest first."""
        return await plans.latest(limit=query.limit, before=query.before)

    @router.get("/replay/plans/{plan_id}", responses=_PLAN, dependencies=[Depends(authenticated)])
    async def show_plan(plan_id: UUID, query: Annotated[PlanItemsQuery, Query()]) -> PlanPage:
        """Return a plan, how far it is, and a page of its events."""
        return await plans.page(plan_id, after=query.after, limit=query.limit)

    @router.post("/replay/plans/{plan_id}/apply", responses=_APPLY, dependencies=[Depends(authenticated)])
    async def apply_plan(plan_id: UUID, body: Apply) -> Plan:
        """Send events of a plan for at most ten seconds. Repeat the call until the plan's state is `finished`.

        Nothing runs on in between, so not calling again is how to stop. A finished plan is returned as it is.
        """
        async with heavy.one():
            return await replays.apply(plan_id, rate=body.rate, at_most=_APPLY_AT_MOST)

    @router.post(
        "/replay/plans/{plan_id}/abort",
        responses=_PLAN,
        dependencies=[Depends(authenticated)],
    )
    async def abort_plan(plan_id: UUID) -> Plan:
        """End a plan before its time; what it has sent stays sent."""
        return await plans.abort(plan_id)


def _place(after: str | None) -> Place | None:
    try:
        return None if after is None else Place.read(after)
    except (ValueError, OverflowError) as error:
        raise Problem(422, "invalid_request", "after: is not the `next` of a page; leave it out to begin") from error
