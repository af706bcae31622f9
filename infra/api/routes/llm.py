"""The operators' routes to the LLM: endpoints, gates, holds, dialects and prices."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, params
from pydantic import BaseModel, ConfigDict, Field

from consumers.generation.fleet import HeldEndpoint, LearnedDialect
from consumers.generation.gate import FleetGate
from consumers.generation.meter import EndpointUse
from infra.api.caller import Authenticated
from infra.api.problems import BODY, TOKEN, Problem, responses
from infra.api.routes.job_lists import BoundedCount
from infra.auth import OPERATOR
from infra.clock import Moment
from infra.identity import Tokens
from infra.operations import llm, prices
from infra.operations.job_search import COUNTED, Count, Term
from infra.postgres import Database

_DEAREST: Final = 10**12
_READS: Final = responses(*TOKEN, "invalid_request", "database_unavailable")
_WRITES: Final = responses(*TOKEN, *BODY, "database_unavailable")
_WRITES_OF_ONE: Final = responses(*TOKEN, *BODY, "control_subject_not_found", "database_unavailable")
_MILLIONTHS: Final = "Of a million tokens, in millionths of the currency's unit: 2.50 is 2500000."


class LlmQuery(BaseModel):
    """The query for the LLM's endpoints."""

    model_config = ConfigDict(extra="forbid")

    hours: int = Field(default=24, ge=1, le=24 * 31, description="How many hours back, this one included.")


class LlmState(BaseModel):
    """The fleet knows this of its LLM endpoints."""

    endpoints: list[EndpointUse] = Field(description="Those that were called in the last hours.")
    gates: list[FleetGate] = Field(description="Every gate that was ever closed. `closed_for` is zero if it is open.")
    holds: list[HeldEndpoint] = Field(description="Those that no worker calls, and who is to blame.")
    dialects: list[LearnedDialect] = Field(description="How each endpoint and model are asked, and why.")


class LlmEndpoint(BaseModel):
    """An endpoint, or all."""

    model_config = ConfigDict(extra="forbid")

    endpoint: Term | None = Field(default=None, description="As `GET /api/ops/llm` names it; left out: all.")


class GatesOpened(BaseModel):
    """Gates that were closed, or are, and those that this has opened."""

    closed: list[FleetGate]
    opened: list[str]


class ForgottenDialect(BaseModel):
    """The next call to this endpoint and model learns again how it is asked."""

    endpoint: str
    model: str


class DialectsForgotten(BaseModel):
    """Workers notice within half a minute."""

    forgotten: list[ForgottenDialect]


class UnpricedCalls(BaseModel):
    """Calls on record of a model that have no price."""

    model: str = Field(description="Empty: it is not known.")
    calls: BoundedCount


class PriceList(BaseModel):
    """Every price, each model's newest first, and the calls that have none."""

    prices: list[prices.Price]
    without_price: list[UnpricedCalls]


class NewPrice(BaseModel):
    """A model's price, from a time on."""

    model_config = ConfigDict(extra="forbid")

    model: Term = Field(description="As its answers name it.")
    holds_from: Moment = Field(description="Calls that begin from then on cost this.")
    input_price: int = Field(ge=0, le=_DEAREST, description=_MILLIONTHS)
    output_price: int = Field(ge=0, le=_DEAREST, description=_MILLIONTHS)
    currency: str = Field(default="USD", pattern="^[A-Z]{3}$", description="The same for all prices.")

    def price(self) -> prices.Price:
        """Return it as the operations take it."""
        return prices.Price(**dict(self))


class PriceEffects(BaseModel):
    """This follows from a price."""

    calls_priced: BoundedCount = Field(
        description="Calls on record that have no price and get one; others keep theirs."
    )
    before: prices.Price | None = Field(description="The model's price until then, or the one that is replaced.")
    holds_until: datetime | None = Field(description="When its next price holds, which is set already.")


class PriceAnswer(BaseModel):
    """A price is set."""

    calls_priced: int = Field(description="Calls on record, which had no price, that have one now.")


def create_router(database: Database, tokens: Tokens) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/ops/llm", tags=["operators"])
    guarded = [Depends(Authenticated(tokens, scope=OPERATOR, logs=database))]

    @router.get("", responses=_READS, dependencies=guarded)
    async def show_llm(query: Annotated[LlmQuery, Query()]) -> LlmState:
        """Return endpoints with their use, gates, holds and dialects. `POST /api/ops/controls` closes a gate."""
        return LlmState(
            endpoints=list(await llm.endpoints(database, query.hours)),
            gates=list(await llm.gates(database)),
            holds=list(await llm.holds(database)),
            dialects=list(await llm.dialects(database)),
        )

    @router.post("/gates/open/effects", responses=_WRITES_OF_ONE, dependencies=guarded)
    async def show_closed_gates(body: LlmEndpoint) -> GatesOpened:
        """Return the gates that would be opened; nothing is done."""
        with _refusals():
            return GatesOpened(closed=list(await llm.closed_gates(database, body.endpoint)), opened=[])

    @router.post("/gates/open", responses=_WRITES_OF_ONE, dependencies=guarded)
    async def open_gates(body: LlmEndpoint) -> GatesOpened:
        """Open closed gates before their time. The endpoint may answer 429 again, and then they close again."""
        with _refusals():
            closed = await llm.closed_gates(database, body.endpoint)
            opened = await llm.open_gates(database, closed) if closed else []
            return GatesOpened(closed=list(closed), opened=list(opened))

    @router.post("/dialects/forget", responses=_WRITES, dependencies=guarded)
    async def forget_dialects(body: LlmEndpoint) -> DialectsForgotten:
        """Forget what was learned of an endpoint, or of all. The next call learns it again."""
        forgotten = await llm.forget_dialects(database, body.endpoint)
        found = [ForgottenDialect(endpoint=endpoint, model=model) for endpoint, model in forgotten]
        return DialectsForgotten(forgotten=found)

    _add_prices(router, database, guarded)
    return router


def _add_prices(router: APIRouter, database: Database, guarded: Sequence[params.Depends]) -> None:
    @router.get("/prices", responses=_READS, dependencies=guarded)
    async def list_prices() -> PriceList:
        """List every price, and the models whose calls have none."""
        found, without = await prices.prices(database, most=COUNTED + 1)
        unpriced = [
            UnpricedCalls(model=model, calls=BoundedCount.of(Count.of(calls))) for model, calls in without.items()
        ]
        return PriceList(prices=found, without_price=unpriced)

    @router.post("/prices/effects", responses=_WRITES, dependencies=guarded)
    async def show_price_effects(body: NewPrice) -> PriceEffects:
        """Say what would follow from a price; nothing is done."""
        with _refusals():
            effects = await prices.effects_of_price(database, body.price())
        priced = BoundedCount.of(effects.calls_priced)
        return PriceEffects(calls_priced=priced, before=effects.before, holds_until=effects.holds_until)

    @router.post("/prices", responses=_WRITES, dependencies=guarded)
    async def set_price(body: NewPrice) -> PriceAnswer:
        """Set a model's price from a time on. Calls on record that have none are priced; others keep theirs."""
        with _refusals():
            return PriceAnswer(calls_priced=await prices.set_price(database, body.price()))


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except llm.NoSuchGate as error:
        raise Problem(404, "control_subject_not_found", str(error)) from error
    except prices.WrongPrice as error:
        raise Problem(422, "invalid_request", str(error)) from error
