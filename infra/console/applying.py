"""Plans are applied by tasks of the console's process.

If the process ends, a plan stands where it was, and anybody goes on with it by applying it again; a plan of another
process is said to be busy.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import structlog
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response
from starlette.routing import Route

from infra.clock import Moment
from infra.console.desk import Desk
from infra.console.visits import Visit
from infra.errors import Refused, TeamfitError

log = structlog.get_logger(__name__)

# A plan holds two connections while it is applied, and pages need some too.
_MOST_AT_ONCE: Final = 1
_MOST_REMEMBERED: Final = 100


@dataclass(frozen=True, slots=True)
class _Run:
    task: "asyncio.Task[object]"
    rate: float


class Before(BaseModel):
    """The page of a list of plans has those made before a time."""

    model_config = ConfigDict(extra="forbid")

    before: Moment | None = None


class Applying:
    """The plans that this process applies, and why it stopped where it did."""

    def __init__(self) -> None:
        self._runs: dict[UUID, _Run] = {}
        self._refusals: dict[UUID, str] = {}

    def start(self, plan_id: UUID, rate: float, apply: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Begin to apply a plan, or go on with it. Raises Refused while another is applied."""
        if plan_id in self._runs:
            return
        if len(self._runs) >= _MOST_AT_ONCE:
            raise Refused("too_busy", "another plan is being applied here; wait for it, or pause it")
        self._refusals.pop(plan_id, None)
        self._runs[plan_id] = _Run(asyncio.create_task(self._apply(plan_id, apply)), rate)

    def rate_of(self, plan_id: UUID) -> float | None:
        """Return the rate at which this process applies a plan; None if it does not."""
        run = self._runs.get(plan_id)
        return run.rate if run else None

    def refusal_of(self, plan_id: UUID) -> str | None:
        """Return why applying a plan last stopped by itself."""
        return self._refusals.get(plan_id)

    async def pause(self, plan_id: UUID) -> bool:
        """Stop after the batch under way; return whether this process was at it."""
        run = self._runs.get(plan_id)
        if run is not None:
            run.task.cancel()
            with suppress(asyncio.CancelledError):
                await run.task
        return run is not None

    async def close(self) -> None:
        """Pause everything."""
        for plan_id in list(self._runs):
            await self.pause(plan_id)

    async def _apply(self, plan_id: UUID, apply: Callable[[], Coroutine[Any, Any, object]]) -> None:
        try:
            await apply()
        except TeamfitError as error:
            if len(self._refusals) >= _MOST_REMEMBERED:
                self._refusals.clear()
            self._refusals[plan_id] = str(error)
            log.warning("console.plan_stopped", plan_id=str(plan_id), why=str(error))
        finally:
            del self._runs[plan_id]


def stop_routes(
    desk: Desk, applying: Applying, page: str, name: str, abort: Callable[[UUID], Awaitable[object]]
) -> list[Route]:
    """Return the routes by which a plan is paused, and ended for good.

    Args:
        desk: guards them.
        applying: the plans of this process.
        page: where the pages of these plans are.
        name: of the plan's ID in the path.
        abort: ends a plan.
    """

    async def pause(visit: Visit) -> Response:
        plan_id = UUID(visit.path(name))
        if not await applying.pause(plan_id):
            raise Refused("plan_busy", "this process does not apply the plan; abort it, and its applier stops")
        return desk.go(visit, f"{page}/{plan_id}")

    async def end(visit: Visit) -> Response:
        plan_id = UUID(visit.path(name))
        await abort(plan_id)
        return desk.go(visit, f"{page}/{plan_id}")

    return [
        desk.action(f"{page}/{{{name}:uuid}}/pause", pause),
        desk.action(f"{page}/{{{name}:uuid}}/abort", end),
    ]
