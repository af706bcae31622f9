"""The page of the schedule shows what is published later, when and why."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict
from starlette.routing import Route

from infra.console.desk import Desk
from infra.console.visits import Visit
from infra.operations.schedule import read_due
from infra.texts import STORABLE
from streams.jobs.stages import CONSUMER_GROUPS


class _Wanted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    topic: Annotated[str, STORABLE] | None = None
    cursor: str | None = None


def routes(desk: Desk) -> list[Route]:
    """Return the routes."""

    async def model(visit: Visit) -> Mapping[str, Any]:
        wanted = _Wanted.model_validate(visit.fields)
        found = await read_due(desk.database, topic=wanted.topic, cursor=wanted.cursor)
        return {"found": found, "topics": sorted(CONSUMER_GROUPS), "at": desk.database.clock.now()}

    return desk.live_page("/schedule", "schedule.html", model)
