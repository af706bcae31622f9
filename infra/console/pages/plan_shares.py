"""The shares of plans that organizations subscribe to; operators set them and forget them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.routing import Route

from infra.console.asking import Change, Question
from infra.console.desk import Desk
from infra.console.pages.organizations import GivenShare
from infra.console.visits import Visit
from infra.operations.plans import (
    PlanShare,
    ShareEffects,
    effects_of_forgetting,
    effects_of_share,
    forget_share,
    set_share,
    shares,
)
from infra.operations.prices import amount_of, budget_of
from infra.texts import STORABLE

_PAGE: Final = "/organizations/plans"

_Plan = Annotated[str, Field(max_length=64), STORABLE]


class _OfPlan(BaseModel):
    """The form names a plan."""

    model_config = ConfigDict(extra="forbid")

    plan: _Plan


class _Changes(_OfPlan, GivenShare):
    """The form of a plan's share; one that is left out stays."""

    no_cap: bool = False

    def share(self) -> PlanShare:
        """Return it as the operations take it, the budget in micro-units. Raises WrongPrice."""
        return PlanShare(**{**self.model_dump(exclude={"no_cap"}), "budget": budget_of(self.budget)})


def routes(desk: Desk) -> list[Route]:
    """Return the routes."""

    async def model(_visit: Visit) -> Mapping[str, Any]:
        return {"shares": await shares(desk.database), "amount_of": amount_of}

    async def choose(visit: Visit) -> Response:
        """Say what would follow from a change, and ask."""
        changes = _Changes.model_validate(visit.fields)
        effects = await effects_of_share(desk.database, changes.share(), no_cap=changes.no_cap)
        hint = "It acts on what waits, within a second. What is worked on goes on."
        return _question(changes.plan, effects, f"{_PAGE}/set/confirmed", hint).asked(desk, visit)

    async def act(visit: Visit) -> Response:
        changes = _Changes.model_validate(visit.fields)
        await set_share(desk.database, changes.share(), no_cap=changes.no_cap)
        return desk.go(visit, _PAGE)

    async def choose_to_forget(visit: Visit) -> Response:
        """Say what would follow from forgetting it all, and ask."""
        plan = _OfPlan.model_validate(visit.fields).plan
        effects = await effects_of_forgetting(desk.database, plan)
        hint = "Its organizations have weight 1 and no limits then, but for what they were given themselves."
        return _question(plan, effects, f"{_PAGE}/forget/confirmed", hint).asked(desk, visit)

    async def forget(visit: Visit) -> Response:
        await forget_share(desk.database, _OfPlan.model_validate(visit.fields).plan)
        return desk.go(visit, _PAGE)

    return [
        desk.action(f"{_PAGE}/set", choose),
        desk.action(f"{_PAGE}/set/confirmed", act),
        desk.action(f"{_PAGE}/forget", choose_to_forget),
        desk.action(f"{_PAGE}/forget/confirmed", forget),
        *desk.live_page(_PAGE, "plan_shares.html", model),
    ]


def _question(plan: str, effects: ShareEffects, action: str, hint: str) -> Question:
    return Question(
        title="Share of a plan",
        subject=f"plan {plan}",
        effects=[
            ("Organizations that have it", f"{effects.organizations:,}"),
            ("Of them with values of their own", f"{effects.with_their_own:,}"),
            ("Their runs that wait", f"{effects.waiting:,}"),
            ("Worked on", f"{effects.in_flight:,}"),
        ],
        changes=_changes(plan, effects),
        action=action,
        hint=hint,
        back=_PAGE,
    )


def _changes(plan: str, effects: ShareEffects) -> Sequence[Change]:
    now, then = (asdict(one or PlanShare(plan)) for one in (effects.before, effects.after))
    return [(name.replace("_", " "), _said(name, now[name]), _said(name, then[name])) for name in now if name != "plan"]


def _said(name: str, value: object) -> str:
    if value is None:
        return "1" if name == "weight" else "–"
    return amount_of(value) if name == "budget" and isinstance(value, int) else str(value)
