"""The overview counts jobs and shows what waits, what is held, what failed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.routing import Route

from infra.console.desk import Desk
from infra.console.live import Shared
from infra.console.visits import Visit
from infra.errors import DependencyDown
from infra.operations.job_search import Count, JobFilter, count_jobs
from infra.operations.lag import Lag, read_lag
from infra.operations.llm import gates, holds
from producers.replay.failed import FailedEvents, Filter
from streams.redis.errors import TransportError

_STATES: Final = ("pending", "processing", "completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class _Now:
    """What the overview shows, read at one moment for everybody who looks."""

    states: Sequence[tuple[str, Count]]
    lag: Lag | None
    broker: str | None
    gates: Sequence[Any]
    holds: Sequence[Any]
    failed: Any


def routes(desk: Desk) -> list[Route]:
    """Return the routes."""
    now = Shared(lambda: _read(desk))

    async def model(_visit: Visit) -> Mapping[str, Any]:
        return {"view": await now.get()}

    return desk.live_page("/", "overview.html", model)


async def _read(desk: Desk) -> _Now:
    states = [(state, await count_jobs(desk.database, JobFilter(status=state))) for state in _STATES]
    lag, broker = None, None
    try:
        lag = await read_lag(desk.broker)
    except (DependencyDown, TransportError) as error:
        broker = str(error)
    return _Now(
        states=states,
        lag=lag,
        broker=broker,
        gates=[one for one in await gates(desk.database) if one.closed_for],
        holds=await holds(desk.database),
        failed=await FailedEvents(desk.database, desk.database.clock).page(Filter(), limit=5),
    )
