"""A replay plan is shown with its effects, applied at a rate, paused, aborted.

A plan is applied by a task of this process. If the process ends, the plan stands where it was, and anybody goes on with
it by applying it again; a plan of another process is said to be busy.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.routing import Route

from infra.clock import Moment
from infra.console.desk import Desk
from infra.console.visits import Visit
from infra.errors import Refused, TeamfitError
from producers.replay.apply import Replays
from producers.replay.effects import BECAUSE
from producers.replay.plans import Plans

log = structlog.get_logger(__name__)

_ITEMS: Final = 100
_LISTED: Final = 50
_LAST_POSITION: Final = 2**31 - 1
# A plan holds two connections while it is applied, and pages need some too.
_MOST_AT_ONCE: Final = 1
_WAIT_FOR_QUOTA: Final = timedelta(seconds=30)
_MOST_REMEMBERED: Final = 100


class _Rate(BaseModel):
    """How fast a plan's events are sent."""

    model_config = ConfigDict(extra="forbid")

    rate: float = Field(ge=1, le=10_000)


class _Items(BaseModel):
    """The page of a plan's items."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(default=0, ge=0, le=_LAST_POSITION)


@dataclass(frozen=True, slots=True)
class _Run:
    task: "asyncio.Task[object]"
    rate: float


class Applying:
    """The plans that this process applies, and why it stopped where it did."""

    def __init__(self, desk: Desk) -> None:
        clock = desk.database.clock
        self._replays = Replays(desk.database, desk.broker, clock, release_limit=_WAIT_FOR_QUOTA)
        self._runs: dict[UUID, _Run] = {}
        self._refusals: dict[UUID, str] = {}

    def start(self, plan_id: UUID, *, rate: float) -> None:
        """Begin to apply a plan, or go on with it. Raises Refused while another is applied."""
        if plan_id in self._runs:
            return
        if len(self._runs) >= _MOST_AT_ONCE:
            raise Refused("too_busy", "another plan is being applied here; wait for it, or pause it")
        self._refusals.pop(plan_id, None)
        self._runs[plan_id] = _Run(asyncio.create_task(self._apply(plan_id, rate)), rate)

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

    async def _apply(self, plan_id: UUID, rate: float) -> None:
        try:
            await self._replays.apply(plan_id, rate=rate)
        except TeamfitError as error:
            if len(self._refusals) >= _MOST_REMEMBERED:
                self._refusals.clear()
            self._refusals[plan_id] = str(error)
            log.warning("console.plan_stopped", plan_id=str(plan_id), why=str(error))
        finally:
            del self._runs[plan_id]


class _Before(BaseModel):
    """The page of the list of plans: those made before a time."""

    model_config = ConfigDict(extra="forbid")

    before: Moment | None = None


def routes(desk: Desk, applying: Applying) -> list[Route]:
    """Return the routes."""
    plans = Plans(desk.database, desk.database.clock)

    async def every(visit: Visit) -> Mapping[str, Any]:
        before = _Before.model_validate(visit.fields).before
        found = await plans.latest(limit=_LISTED, before=before)
        return {"plans": found, "next": found[-1].created_at if len(found) == _LISTED else None}

    async def model(visit: Visit) -> Mapping[str, Any]:
        plan_id = UUID(visit.path("plan_id"))
        items = _Items.model_validate(visit.fields)
        plan = await plans.page(plan_id, after=items.after, limit=_ITEMS)
        last = plan.items[-1].position if len(plan.items) == _ITEMS else None
        return {
            "plan": plan,
            "because": BECAUSE,
            "rate": applying.rate_of(plan_id),
            "refusal": applying.refusal_of(plan_id),
            "next": last,
        }

    async def apply(visit: Visit) -> Response:
        plan_id = UUID(visit.path("plan_id"))
        rate = _Rate.model_validate(visit.fields).rate
        await plans.get(plan_id)
        applying.start(plan_id, rate=rate)
        return desk.go(visit, f"/replay/{plan_id}")

    async def pause(visit: Visit) -> Response:
        plan_id = UUID(visit.path("plan_id"))
        if not await applying.pause(plan_id):
            raise Refused("plan_busy", "this process does not apply the plan; abort it, and its applier stops")
        return desk.go(visit, f"/replay/{plan_id}")

    async def abort(visit: Visit) -> Response:
        plan_id = UUID(visit.path("plan_id"))
        await plans.abort(plan_id)
        return desk.go(visit, f"/replay/{plan_id}")

    return [
        desk.action("/replay/{plan_id:uuid}/apply", apply),
        desk.action("/replay/{plan_id:uuid}/pause", pause),
        desk.action("/replay/{plan_id:uuid}/abort", abort),
        *desk.live_page("/replay/{plan_id:uuid}", "plan.html", model),
        *desk.live_page("/replay", "plans.html", every),
    ]
