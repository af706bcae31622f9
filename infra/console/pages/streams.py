"""The page of streams shows what waits in each topic for each group."""

from collections.abc import Mapping
from typing import Any

from starlette.routing import Route

from infra.console.desk import Desk
from infra.console.live import Shared
from infra.console.visits import Visit
from infra.errors import DependencyDown
from infra.operations.lag import Lag, read_lag
from streams.redis.errors import TransportError


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

    return desk.live_page("/streams", "streams.html", model)
