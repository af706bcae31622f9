"""The overview shows how the pipeline is, how it was, and what is wrong."""

from collections.abc import Mapping
from typing import Any

from starlette.routing import Route

from infra.console.charts import chart_of
from infra.console.desk import Desk
from infra.console.visits import Visit
from infra.operations.overview import Overviews


def routes(desk: Desk, overviews: Overviews) -> list[Route]:
    """Return the routes."""

    async def model(_visit: Visit) -> Mapping[str, Any]:
        view = await overviews.read()
        return {
            "view": view,
            "day": chart_of(view.history.day, by="%H:%M"),
            "days": chart_of(view.history.days, by="%Y-%m-%d"),
        }

    return desk.live_page("/", "overview.html", model)
