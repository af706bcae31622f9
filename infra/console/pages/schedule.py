"""The schedule shows what is published later, and periodic tasks, which operators run."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response
from starlette.routing import Route

from infra.console.desk import Desk
from infra.console.visits import Visit
from infra.operations.schedule import periodic_tasks, read_due, run_task
from infra.texts import STORABLE
from streams.jobs.stages import CONSUMER_GROUPS


class _Wanted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    topic: Annotated[str, STORABLE] | None = None
    cursor: str | None = None


class _Run(BaseModel):
    model_config = ConfigDict(extra="forbid")

    task: Annotated[str, STORABLE]
    reason: Annotated[str, STORABLE] | None = None


def routes(desk: Desk) -> list[Route]:
    """Return the routes."""

    async def model(visit: Visit) -> Mapping[str, Any]:
        wanted = _Wanted.model_validate(visit.fields)
        found = await read_due(desk.database, topic=wanted.topic, cursor=wanted.cursor)
        tasks = await periodic_tasks(desk.database)
        return {"found": found, "tasks": tasks, "topics": sorted(CONSUMER_GROUPS), "at": desk.database.clock.now()}

    async def run(visit: Visit) -> Response:
        """Have a periodic task run now."""
        wanted = _Run.model_validate(visit.fields)
        await run_task(desk.database, wanted.task, reason=wanted.reason)
        return desk.go(visit, "/schedule")

    return [desk.action("/schedule/run", run), *desk.live_page("/schedule", "schedule.html", model)]
