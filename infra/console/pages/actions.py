"""The log of actions is a page: who did what, when, and with which effects."""

from collections.abc import Mapping
from typing import Any, Final, get_args

from pydantic import BaseModel, ConfigDict, Field
from starlette.routing import Route

from infra.actions import Face
from infra.console.desk import Desk
from infra.console.visits import Visit
from infra.operations.actions import ActionFilter, ActionOutcome, find_actions

_LARGEST: Final = 500


class _Page(BaseModel):
    """The part of the address that is no filter."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=_LARGEST)
    cursor: str | None = None


def routes(desk: Desk) -> list[Route]:
    """Return the routes."""

    async def model(visit: Visit) -> Mapping[str, Any]:
        own = {name: value for name, value in visit.fields.items() if name in _Page.model_fields}
        page = _Page.model_validate(own)
        chosen = ActionFilter.model_validate({name: one for name, one in visit.fields.items() if name not in own})
        found = await find_actions(desk.database, chosen, limit=page.limit, cursor=page.cursor)
        return {"found": found, "faces": get_args(Face), "outcomes": get_args(ActionOutcome)}

    return desk.live_page("/actions", "actions.html", model)
