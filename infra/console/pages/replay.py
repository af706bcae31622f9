"""A replay plan is shown with its effects, applied at a rate, paused, aborted.

It is applied by a task of this process: see `applying.py`.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.routing import Route

from infra.console.applying import Applying, Before, stop_routes
from infra.console.desk import Desk
from infra.console.visits import Visit
from producers.replay.apply import Replays
from producers.replay.effects import BECAUSE
from producers.replay.plans import Plans

_ITEMS: Final = 100
_LISTED: Final = 50
_LAST_POSITION: Final = 2**31 - 1
_WAIT_FOR_QUOTA: Final = timedelta(seconds=30)


class _Rate(BaseModel):
    """How fast a plan's events are sent."""

    model_config = ConfigDict(extra="forbid")

    rate: float = Field(ge=1, le=10_000)


class _Items(BaseModel):
    """The page of a plan's items."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(default=0, ge=0, le=_LAST_POSITION)


def routes(desk: Desk, applying: Applying) -> list[Route]:
    """Return the routes."""
    plans = Plans(desk.database, desk.database.clock)
    replays = Replays(desk.database, desk.broker, desk.database.clock, release_limit=_WAIT_FOR_QUOTA)

    async def every(visit: Visit) -> Mapping[str, Any]:
        before = Before.model_validate(visit.fields).before
        found = await plans.latest(limit=_LISTED, before=before)
        return {"plans": found, "next": found[-1].created_at if len(found) == _LISTED else None}

    async def model(visit: Visit) -> Mapping[str, Any]:
        plan_id = UUID(visit.path("plan_id"))
        items = _Items.model_validate(visit.fields)
        plan = await plans.page(plan_id, after=items.after, limit=_ITEMS)
        last = plan.items[-1].position if len(plan.items) == _ITEMS else None
        return {
            "plan": plan,
            "because": BECAUSE,
            "rate": applying.rate_of(plan_id),
            "refusal": applying.refusal_of(plan_id),
            "next": last,
        }

    async def apply(visit: Visit) -> Response:
        plan_id = UUID(visit.path("plan_id"))
        rate = _Rate.model_validate(visit.fields).rate
        await plans.get(plan_id)
        applying.start(plan_id, rate, lambda: replays.apply(plan_id, rate=rate))
        return desk.go(visit, f"/replay/{plan_id}")

    return [
        desk.action("/replay/{plan_id:uuid}/apply", apply),
        *stop_routes(desk, applying, "/replay", "plan_id", plans.abort),
        *desk.live_page("/replay/{plan_id:uuid}", "plan.html", model),
        *desk.live_page("/replay", "plans.html", every),
    ]
