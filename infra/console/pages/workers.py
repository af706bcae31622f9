"""Workers are shown with what they do; operators pause, drain and set them."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.routing import Route

from infra.console.asking import Question
from infra.console.desk import Desk
from infra.console.visits import Visit
from infra.operations.controls import (
    BY_ORGANIZATION,
    LEVELS,
    PAUSABLE,
    InvalidControl,
    Wish,
    controls,
    effects_of,
    processes,
    set_control,
    unset_control,
)
from streams.jobs.controls import ControlKind

_LONGEST_MIN: Final = 366 * 24 * 60


class _Wanted(BaseModel):
    """The form of a control. Minutes that are left out: until it is ended."""

    model_config = ConfigDict(extra="forbid")

    kind: ControlKind
    subject: str = ""
    organization_id: str | None = None
    value: str | None = None
    reason: str = ""
    minutes: float | None = Field(default=None, gt=0, le=_LONGEST_MIN)

    def wish(self) -> Wish:
        """Return it as the operations take it."""
        lasts = None if self.minutes is None else timedelta(minutes=self.minutes)
        return Wish(self.kind, self.subject, self.organization_id, self.value, self.reason, lasts)


def routes(desk: Desk) -> list[Route]:
    """Return the routes."""

    async def model(_visit: Visit) -> Mapping[str, Any]:
        return {
            "processes": await processes(desk.database),
            "controls": await controls(desk.database),
            "pausable": PAUSABLE,
            "by_organization": BY_ORGANIZATION,
            "levels": LEVELS,
        }

    async def choose(visit: Visit) -> Response:
        """Say what would follow, and ask."""
        wish = _Wanted.model_validate(visit.fields).wish()
        effects = await effects_of(desk.database, wish)
        value = f": {wish.value}" if wish.value else ""
        question = Question(
            title="Control",
            subject=f"{wish.kind.replace('_', ' ')}, {wish.target}{value}",
            why=wish.reason,
            effects=[(name.replace("_", " "), one) for name, one in effects.items()],
            action="/workers/control/confirmed",
            hint="Every process obeys within two seconds, and after a restart too.",
            back="/workers",
        )
        return question.asked(desk, visit)

    async def act(visit: Visit) -> Response:
        await set_control(desk.database, _Wanted.model_validate(visit.fields).wish())
        return desk.go(visit, "/workers")

    async def end(visit: Visit) -> Response:
        wish = _Wanted.model_validate(visit.fields).wish()
        if wish.lasts is not None:
            raise InvalidControl("minutes: what is ended lasts no longer; leave them out")
        await unset_control(desk.database, wish)
        return desk.go(visit, "/workers")

    return [
        desk.action("/workers/control", choose),
        desk.action("/workers/control/confirmed", act),
        desk.action("/workers/control/end", end),
        *desk.live_page("/workers", "workers.html", model),
    ]
