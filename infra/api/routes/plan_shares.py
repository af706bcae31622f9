"""The operators' routes to the shares of plans that organizations subscribe to."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final, Literal, TypeAlias

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from infra.api.caller import Authenticated
from infra.api.problems import BODY, TOKEN, Problem, responses
from infra.auth import OPERATOR
from infra.identity import Tokens
from infra.operations import plans
from infra.operations.prices import WrongPrice
from infra.postgres import Database
from infra.texts import STORABLE

_LARGEST: Final = 2**31 - 1
_READS: Final = responses(*TOKEN, "database_unavailable")
_WRITES: Final = responses(*TOKEN, *BODY, "database_unavailable")
_FORGETS: Final = responses(*TOKEN, *BODY, "plan_not_found", "database_unavailable")

PlanName: TypeAlias = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64), STORABLE]


class PlanShares(BaseModel):
    """The plans that something is set for. Any other has weight 1 and no limits."""

    plans: list[plans.PlanShare]


class OfPlan(BaseModel):
    """A plan of subscriptions."""

    model_config = ConfigDict(extra="forbid")

    plan: PlanName = Field(description="As subscriptions name it.")


class PlanChanges(OfPlan):
    """These values of a plan's share change; one that is left out stays."""

    weight: float | None = Field(default=None, ge=0.001, le=1000, description="The share of each against others'.")
    max_in_flight: int | None = Field(default=None, ge=0, le=_LARGEST, description="Runs of each at once; 0 pauses.")
    requests_per_minute: int | None = Field(default=None, ge=0, le=1_000_000, description="Of each; 0 refuses all.")
    max_waiting: int | None = Field(default=None, ge=0, le=_LARGEST, description="Runs of each that may wait.")
    budget: int | None = Field(default=None, ge=0, le=10**15, description="In millionths of the currency's unit.")
    budget_kind: Literal["hard", "soft"] | None = None
    no_cap: bool = Field(default=False, description="Any number of runs at once; then leave max_in_flight out.")

    def share(self) -> plans.PlanShare:
        """Return it as the operations take it."""
        return plans.PlanShare(**self.model_dump(exclude={"no_cap"}))


class PlanForgotten(BaseModel):
    """Nothing is set for the plan any more."""

    plan: str


def create_router(database: Database, tokens: Tokens) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/ops/organizations/plans", tags=["operators"])
    guarded = [Depends(Authenticated(tokens, scope=OPERATOR, logs=database))]

    @router.get("", responses=_READS, dependencies=guarded)
    async def list_plan_shares() -> PlanShares:
        """List the plans that something is set for."""
        return PlanShares(plans=list(await plans.shares(database)))

    @router.post("/set/effects", responses=_WRITES, dependencies=guarded)
    async def show_share_effects(body: PlanChanges) -> plans.ShareEffects:
        """Say what would follow from a change of a plan's share; nothing is done."""
        with _refusals():
            return await plans.effects_of_share(database, body.share(), no_cap=body.no_cap)

    @router.post("/set", responses=_WRITES, dependencies=guarded)
    async def set_plan_share(body: PlanChanges) -> plans.PlanShare:
        """Change what is given of a plan. It acts on what waits, within a second.

        What an organization was given itself goes before it.
        """
        with _refusals():
            return await plans.set_share(database, body.share(), no_cap=body.no_cap)

    @router.post("/forget/effects", responses=_FORGETS, dependencies=guarded)
    async def show_forgetting_effects(body: OfPlan) -> plans.ShareEffects:
        """Say what would follow from forgetting a plan's share; nothing is done."""
        with _refusals():
            return await plans.effects_of_forgetting(database, body.plan)

    @router.post("/forget", responses=_FORGETS, dependencies=guarded)
    async def forget_plan_share(body: OfPlan) -> PlanForgotten:
        """Forget all that was set for a plan, its intake limits and budget too."""
        with _refusals():
            await plans.forget_share(database, body.plan)
        return PlanForgotten(plan=body.plan)

    return router


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except plans.UnknownPlan as error:
        raise Problem(404, "plan_not_found", str(error)) from error
    except (plans.NoChange, WrongPrice) as error:
        raise Problem(422, "invalid_request", str(error)) from error
