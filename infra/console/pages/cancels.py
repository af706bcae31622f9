"""Many jobs are cancelled by a plan. Its frozen set is shown first, with its effects."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.routing import Route

from infra.console.applying import Applying, Before, stop_routes
from infra.console.desk import Desk
from infra.console.visits import Visit
from infra.operations.cancel_applying import CancelApplier
from infra.operations.cancel_plans import CancelPlans
from infra.operations.job_search import JobFilter
from producers.cancel.cancellation import Cancellation

_ITEMS: Final = 100
_LISTED: Final = 50
_ORGANIZATIONS: Final = 20


class _Apply(BaseModel):
    """Why, and how fast."""

    model_config = ConfigDict(extra="forbid")

    because: str = Field(min_length=1, max_length=500)
    rate: float = Field(ge=1, le=10_000)


class _Items(BaseModel):
    """The page of a plan's jobs."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(default=0, ge=0, le=2**31 - 1)


def routes(desk: Desk, applying: Applying) -> list[Route]:
    """Return the routes."""
    plans = CancelPlans(desk.database)
    applier = CancelApplier(Cancellation(desk.database, desk.broker, desk.database.clock))

    async def every(visit: Visit) -> Mapping[str, Any]:
        found = await plans.latest(limit=_LISTED, before=Before.model_validate(visit.fields).before)
        return {"plans": found, "next": found[-1].created_at if len(found) == _LISTED else None}

    async def make(visit: Visit) -> Response:
        """Freeze all jobs that the list's filter finds."""
        plan = await plans.make(JobFilter.model_validate(visit.fields), by=visit.session.subject)
        return desk.go(visit, f"/cancels/{plan.id}")

    async def model(visit: Visit) -> Mapping[str, Any]:
        plan_id = UUID(visit.path("cancel_id"))
        plan = await plans.page(plan_id, after=_Items.model_validate(visit.fields).after, limit=_ITEMS)
        return {
            "plan": plan,
            "organizations": plan.effects.organizations[:_ORGANIZATIONS],
            "rate": applying.rate_of(plan_id),
            "refusal": applying.refusal_of(plan_id),
            "next": plan.items[-1].position if len(plan.items) == _ITEMS else None,
        }

    async def apply(visit: Visit) -> Response:
        plan_id = UUID(visit.path("cancel_id"))
        asked = _Apply.model_validate(visit.fields)
        await plans.get(plan_id)
        applying.start(plan_id, asked.rate, lambda: applier.apply(plan_id, because=asked.because, rate=asked.rate))
        return desk.go(visit, f"/cancels/{plan_id}")

    return [
        desk.action("/cancels", make),
        desk.action("/cancels/{cancel_id:uuid}/apply", apply),
        *stop_routes(desk, applying, "/cancels", "cancel_id", plans.abort),
        *desk.live_page("/cancels/{cancel_id:uuid}", "cancel_plan.html", model),
        *desk.live_page("/cancels", "cancel_plans.html", every),
    ]
