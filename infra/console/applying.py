"""Plans are applied by tasks of the console's process.

If the process ends, a plan stands where it was, and anybody goes on with it by applying it again; a plan of another
process is said to be busy.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

import structlog
from pydantic import BaseModel, ConfigDict, Field
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
_LISTED: Final = 50
_ITEMS: Final = 100


@dataclass(frozen=True, slots=True)
class _Run:
    task: "asyncio.Task[object]"
    rate: float


class AtRate(BaseModel):
    """The form says how fast a plan is applied; a kind may ask for more."""

    model_config = ConfigDict(extra="forbid")

    rate: float = Field(ge=1, le=10_000)


class _Before(BaseModel):
    """The page of a list of plans has those made before a time."""

    model_config = ConfigDict(extra="forbid")

    before: Moment | None = None


class _Items(BaseModel):
    """The page of a plan's items has those after a position."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(default=0, ge=0, le=2**31 - 1)


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


class Plans(Protocol):
    """The plans of a kind, as its pages ask for them."""

    async def latest(self, *, limit: int, before: datetime | None) -> Sequence[Any]:
        """Return plans, the latest first, made before a time."""

    async def get(self, plan_id: UUID) -> object:
        """Return a plan. Raises TeamfitError if there is none."""

    async def page(self, plan_id: UUID, *, after: int, limit: int) -> Any:  # noqa: ANN401 - each kind has its own
        """Return a plan and its items after a position. Raises TeamfitError if there is none."""

    async def abort(self, plan_id: UUID) -> object:
        """End a plan before its time. Raises TeamfitError if there is none."""


@dataclass(frozen=True, slots=True)
class PlanPages:
    """The pages of plans of a kind: their list, and each plan with its buttons.

    Attributes:
        desk: guards them.
        applying: the plans of this process.
        plans: what they show.
        apply: applies a plan, given its ID and what was asked.
        asked: the form by which one asks for it.
        path: where the pages are.
        name: of the plan's ID in the path.
        template: the page of one plan; with an `s` more, that of the list.
        words: what the page of a plan needs besides.
    """

    desk: Desk
    applying: Applying
    plans: Plans
    apply: Callable[..., Coroutine[Any, Any, object]]
    asked: type[AtRate]
    path: str
    name: str
    template: str
    words: Mapping[str, object] = field(default_factory=dict)

    def routes(self) -> list[Route]:
        """Return the routes."""
        one = f"{self.path}/{{{self.name}:uuid}}"
        return [
            self.desk.action(f"{one}/apply", self._begin),
            self.desk.action(f"{one}/pause", self._pause),
            self.desk.action(f"{one}/abort", self._end),
            *self.desk.live_page(one, f"{self.template}.html", self._one),
            *self.desk.live_page(self.path, f"{self.template}s.html", self._every),
        ]

    async def _every(self, visit: Visit) -> Mapping[str, Any]:
        found = await self.plans.latest(limit=_LISTED, before=_Before.model_validate(visit.fields).before)
        return {"plans": found, "next": found[-1].created_at if len(found) == _LISTED else None}

    async def _one(self, visit: Visit) -> Mapping[str, Any]:
        plan_id = self._id(visit)
        plan = await self.plans.page(plan_id, after=_Items.model_validate(visit.fields).after, limit=_ITEMS)
        return {
            "plan": plan,
            "rate": self.applying.rate_of(plan_id),
            "refusal": self.applying.refusal_of(plan_id),
            "next": plan.items[-1].position if len(plan.items) == _ITEMS else None,
            **self.words,
        }

    async def _begin(self, visit: Visit) -> Response:
        plan_id, how = self._id(visit), self.asked.model_validate(visit.fields)
        await self.plans.get(plan_id)
        self.applying.start(plan_id, how.rate, lambda: self.apply(plan_id, **dict(how)))
        return self._shown(visit)

    async def _pause(self, visit: Visit) -> Response:
        if not await self.applying.pause(self._id(visit)):
            raise Refused("plan_busy", "this process does not apply the plan; abort it, and its applier stops")
        return self._shown(visit)

    async def _end(self, visit: Visit) -> Response:
        await self.plans.abort(self._id(visit))
        return self._shown(visit)

    def _id(self, visit: Visit) -> UUID:
        return UUID(visit.path(self.name))

    def _shown(self, visit: Visit) -> Response:
        return self.desk.go(visit, f"{self.path}/{self._id(visit)}")
