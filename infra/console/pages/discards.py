"""Many failed events are discarded by a plan. Its frozen set is shown first, with its effects."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.routing import Route

from infra.console.applying import Applying, Before, stop_routes
from infra.console.desk import Desk
from infra.console.visits import Visit
from infra.errors import Refused
from infra.operations.discard_applying import DiscardApplier
from infra.operations.discard_plans import DiscardChoice, DiscardPlans

_ITEMS: Final = 100
_LISTED: Final = 50
_ORGANIZATIONS: Final = 20
_CHOOSING: Final = ("chosen", "only_chosen")


class _Apply(BaseModel):
    """Why, and how fast."""

    model_config = ConfigDict(extra="forbid")

    because: str = Field(min_length=1, max_length=1_000)
    rate: float = Field(ge=1, le=10_000)


class _Items(BaseModel):
    """The page of a plan's events."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(default=0, ge=0, le=2**31 - 1)


def routes(desk: Desk, applying: Applying) -> list[Route]:
    """Return the routes."""
    plans, applier = DiscardPlans(desk.database), DiscardApplier(desk.database)

    async def every(visit: Visit) -> Mapping[str, Any]:
        found = await plans.latest(limit=_LISTED, before=Before.model_validate(visit.fields).before)
        return {"plans": found, "next": found[-1].created_at if len(found) == _LISTED else None}

    async def make(visit: Visit) -> Response:
        """Freeze the chosen failed events, or all open ones that the filter finds."""
        fields: dict[str, Any] = {name: one for name, one in visit.fields.items() if name not in _CHOOSING}
        if "only_chosen" in visit.fields:
            if not visit.chosen:
                raise Refused("invalid_request", "choose at least one failed event")
            fields["failed_events"] = list(dict.fromkeys(visit.chosen))
        plan = await plans.make(DiscardChoice.model_validate(fields), by=visit.session.subject)
        return desk.go(visit, f"/discards/{plan.id}")

    async def model(visit: Visit) -> Mapping[str, Any]:
        plan_id = UUID(visit.path("discard_id"))
        plan = await plans.page(plan_id, after=_Items.model_validate(visit.fields).after, limit=_ITEMS)
        return {
            "plan": plan,
            "organizations": plan.effects.organizations[:_ORGANIZATIONS],
            "rate": applying.rate_of(plan_id),
            "refusal": applying.refusal_of(plan_id),
            "next": plan.items[-1].position if len(plan.items) == _ITEMS else None,
        }

    async def apply(visit: Visit) -> Response:
        plan_id = UUID(visit.path("discard_id"))
        asked = _Apply.model_validate(visit.fields)
        await plans.get(plan_id)
        applying.start(plan_id, asked.rate, lambda: applier.apply(plan_id, because=asked.because, rate=asked.rate))
        return desk.go(visit, f"/discards/{plan_id}")

    return [
        desk.action("/discards", make),
        desk.action("/discards/{discard_id:uuid}/apply", apply),
        *stop_routes(desk, applying, "/discards", "discard_id", plans.abort),
        *desk.live_page("/discards/{discard_id:uuid}", "discard_plan.html", model),
        *desk.live_page("/discards", "discard_plans.html", every),
    ]
