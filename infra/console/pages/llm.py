"""The LLM's endpoints, gates, holds, dialects and prices; operators open gates, forget dialects, set prices."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.routing import Route

from infra.console.asking import Question
from infra.console.desk import Desk
from infra.console.visits import Visit
from infra.operations import llm
from infra.operations.job_search import COUNTED, Count
from infra.operations.prices import Price, amount_of, effects_of_price, micro_units, prices, set_price
from infra.texts import STORABLE

_DAYS: Final = 31

_Text = Annotated[str, STORABLE]


class _Wanted(BaseModel):
    """For how many hours back the endpoints are shown."""

    model_config = ConfigDict(extra="forbid")

    hours: int = Field(default=24, ge=1, le=24 * _DAYS)


class _Endpoint(BaseModel):
    """The form names an endpoint, or none for all."""

    model_config = ConfigDict(extra="forbid")

    endpoint: _Text | None = None


class _NewPrice(BaseModel):
    """The form of a price; a day that is left out is today."""

    model_config = ConfigDict(extra="forbid")

    model: _Text = Field(max_length=1_000)
    input_price: _Text = Field(max_length=20)
    output_price: _Text = Field(max_length=20)
    currency: _Text = Field(max_length=3)
    since: date | None = Field(default=None, ge=date(1970, 1, 1), lt=date(2200, 1, 1))

    def price(self, now: datetime) -> Price:
        """Return it as the operations take it. Raises WrongPrice."""
        return Price(
            model=self.model,
            holds_from=datetime.combine(self.since or now.date(), time(), UTC),
            input_price=micro_units(self.input_price, name="input price"),
            output_price=micro_units(self.output_price, name="output price"),
            currency=self.currency,
        )


def routes(desk: Desk) -> list[Route]:
    """Return the routes."""

    async def model(visit: Visit) -> Mapping[str, Any]:
        hours = _Wanted.model_validate(visit.fields).hours
        found, without = await prices(desk.database, most=COUNTED + 1)
        return {
            "hours": hours,
            "endpoints": await llm.endpoints(desk.database, hours),
            "gates": await llm.gates(desk.database),
            "holds": await llm.holds(desk.database),
            "dialects": await llm.dialects(desk.database),
            "prices": found,
            "without_price": {name: Count.of(calls) for name, calls in without.items()},
            "amount_of": amount_of,
        }

    async def open_gate(visit: Visit) -> Response:
        endpoint = _Endpoint.model_validate(visit.fields).endpoint
        if closed := await llm.closed_gates(desk.database, endpoint):
            await llm.open_gates(desk.database, closed)
        return desk.go(visit, "/llm")

    async def forget(visit: Visit) -> Response:
        """Have the next call learn again how an endpoint is asked."""
        await llm.forget_dialects(desk.database, _Endpoint.model_validate(visit.fields).endpoint)
        return desk.go(visit, "/llm")

    return [
        desk.action("/llm/gate/open", open_gate),
        desk.action("/llm/dialect/forget", forget),
        *_pricing(desk),
        *desk.live_page("/llm", "llm.html", model),
    ]


def _pricing(desk: Desk) -> list[Route]:
    def read(visit: Visit) -> Price:
        return _NewPrice.model_validate(visit.fields).price(desk.database.clock.now())

    async def choose(visit: Visit) -> Response:
        """Say what would follow from a price, and ask."""
        price = read(visit)
        effects = await effects_of_price(desk.database, price)
        before = effects.before
        question = Question(
            title="Price of a model",
            subject=f"{price.model} costs {_said(price)} from {price.holds_from:%Y-%m-%d} on (UTC)",
            effects=[
                ("Calls on record that get their price", effects.calls_priced),
                ("Before", f"{_said(before)}, from {before.holds_from:%Y-%m-%d} on" if before else "no price"),
                ("Until", f"{effects.holds_until:%Y-%m-%d}" if effects.holds_until else "another is set"),
            ],
            action="/llm/price/confirmed",
            hint="Calls that begin from then on cost this. Those that have a price keep it.",
            back="/llm",
            button="Set the price",
        )
        return question.asked(desk, visit)

    async def act(visit: Visit) -> Response:
        await set_price(desk.database, read(visit))
        return desk.go(visit, "/llm")

    return [desk.action("/llm/price", choose), desk.action("/llm/price/confirmed", act)]


def _said(price: Price) -> str:
    prices_of = (amount_of(price.input_price), amount_of(price.output_price))
    return f"{prices_of[0]} in and {prices_of[1]} out {price.currency} for a million tokens"
