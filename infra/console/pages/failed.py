"""Failed events: list and groups by filter, one with everything, discarding, planning a replay."""

from collections.abc import Mapping
from typing import Any, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response
from starlette.routing import Route

from infra.console.desk import Desk
from infra.console.visits import Visit
from infra.errors import Refused
from producers.replay.failed import FailedEvents, Filter, Place, State
from producers.replay.failed_groups import read_groups
from producers.replay.plans import Plans
from streams.jobs.stages import STAGES


class _Page(BaseModel):
    """The part of the address that is no filter; no state: any."""

    model_config = ConfigDict(extra="forbid")

    state: State | None = None
    after: str | None = None


def routes(desk: Desk) -> list[Route]:
    """Return the routes."""
    failed = FailedEvents(desk.database, desk.database.clock)
    plans = Plans(desk.database, desk.database.clock)

    async def model(visit: Visit) -> Mapping[str, Any]:
        page, chosen = _read(visit)
        found = await failed.page(chosen, state=page.state, after=_place(page.after))
        return {"found": found, "stages": [one.name for one in STAGES], "states": get_args(State)}

    async def groups(visit: Visit) -> Response:
        page, chosen = _read(visit)
        found = await read_groups(desk.database, chosen, state=page.state)
        return desk.show(visit, "failed_groups.html", found=found)

    async def one(visit: Visit) -> Response:
        event = await failed.one(UUID(visit.path("event_id")))
        return desk.show(visit, "failed_event.html", event=event)

    async def discard(visit: Visit) -> Response:
        """Set one aside for good, with a reason."""
        event_id = UUID(visit.path("event_id"))
        because = visit.fields.get("because", "")
        if not because:
            raise Refused("invalid_request", "because: say why; it stays on record")
        found = await failed.find_one(event_id)
        await failed.discard(found, because=because, by=visit.session.subject)
        return desk.go(visit, f"/failed/{event_id}")

    async def plan(visit: Visit) -> Response:
        """Plan the replay of what a filter finds. The plan's page says what would follow."""
        made = await plans.make(Filter.model_validate(visit.fields), by=visit.session.subject)
        return desk.go(visit, f"/replay/{made.id}")

    return [
        desk.action("/failed/plan", plan),
        desk.action("/failed/{event_id:uuid}/discard", discard),
        desk.page("/failed/groups", groups),
        desk.page("/failed/{event_id:uuid}", one),
        *desk.live_page("/failed", "failed.html", model),
    ]


def _read(visit: Visit) -> tuple[_Page, Filter]:
    own = {name: value for name, value in visit.fields.items() if name in _Page.model_fields}
    if "state" not in visit.fields and "state" not in visit.request.query_params:
        own["state"] = "open"
    return _Page.model_validate(own), Filter.model_validate(
        {name: value for name, value in visit.fields.items() if name not in _Page.model_fields}
    )


def _place(after: str | None) -> Place | None:
    try:
        return None if after is None else Place.read(after)
    except (ValueError, OverflowError) as error:
        raise Refused("invalid_request", "after: is not the `next` of a page; leave it out to begin") from error
