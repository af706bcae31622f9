"""Many failed events are discarded by a plan. Its frozen set is shown first, with its effects."""

from functools import partial
from typing import Any, Final

from pydantic import Field
from starlette.responses import Response
from starlette.routing import Route

from infra.console.applying import Applying, AtRate, PlanPages
from infra.console.desk import Desk
from infra.console.visits import Visit
from infra.errors import Refused
from infra.operations.discard_plans import DiscardChoice, apply_discards, discard_plans

_CHOOSING: Final = ("chosen", "only_chosen")


class _Apply(AtRate):
    """Why, and how fast."""

    because: str = Field(min_length=1, max_length=1_000)


def routes(desk: Desk, applying: Applying) -> list[Route]:
    """Return the routes."""
    plans, apply = discard_plans(desk.database), partial(apply_discards, desk.database)

    async def make(visit: Visit) -> Response:
        """Freeze the chosen failed events, or all open ones that the filter finds."""
        fields: dict[str, Any] = {name: one for name, one in visit.fields.items() if name not in _CHOOSING}
        if "only_chosen" in visit.fields:
            if not visit.chosen:
                raise Refused("invalid_request", "choose at least one failed event")
            fields["failed_events"] = list(dict.fromkeys(visit.chosen))
        plan = await plans.make(DiscardChoice.model_validate(fields), by=visit.session.subject)
        return desk.go(visit, f"/discards/{plan.id}")

    return [
        desk.action("/discards", make),
        *PlanPages(desk, applying, plans, apply, _Apply, "/discards", "discard_id", "discard_plan").routes(),
    ]
