"""The pages of streams show what waits for each group, and the entries themselves."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response
from starlette.routing import Route

from infra.console.desk import Desk
from infra.console.live import Shared
from infra.console.visits import Visit
from infra.errors import DependencyDown
from infra.operations.streams import Lag, read_entries, read_lag
from streams.jobs.stages import CONSUMER_GROUPS
from streams.redis.errors import TransportError


class _Wanted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    topic: str
    group: str | None = None
    cursor: str | None = None


def routes(desk: Desk) -> list[Route]:
    """Return the routes."""

    async def read() -> tuple[Lag | None, str | None]:
        try:
            return await read_lag(desk.broker), None
        except (DependencyDown, TransportError) as error:
            return None, str(error)

    now = Shared(read)

    async def model(_visit: Visit) -> Mapping[str, Any]:
        lag, away = await now.get()
        return {"lag": lag, "away": away}

    async def entries(visit: Visit) -> Response:
        """Show entries of a topic, or those that are pending in a group."""
        wanted = _Wanted.model_validate(visit.fields)
        found, away = None, None
        try:
            found = await read_entries(desk.broker, wanted.topic, group=wanted.group, cursor=wanted.cursor)
        except DependencyDown as error:
            away = str(error)
        return desk.show(
            visit,
            "entries.html",
            topic=wanted.topic,
            topics=sorted(CONSUMER_GROUPS),
            groups=CONSUMER_GROUPS.get(wanted.topic, ()),
            found=found,
            entries=found.entries if found else (),
            away=away,
        )

    return [desk.page("/streams/entries", entries), *desk.live_page("/streams", "streams.html", model)]
