"""Prices say what the tokens of each model cost, and from when on.

A price is in micro-units of the currency for a million tokens: 2.50 USD for a million is 2500000. All prices are of
one currency, as what they add up to has one.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

import aiosql

from consumers.generation import meter
from infra.actions import Act, acting
from infra.errors import TeamfitError
from infra.operations.job_search import COUNTED, Count
from infra.postgres import Connection, Database

_queries = aiosql.from_path(Path(__file__).with_name("prices.sql"), "asyncpg")

MICRO: Final = 1_000_000
_DEAREST: Final = 1_000_000
_LARGEST_BUDGET: Final = 1_000_000_000
_CURRENCY: Final = re.compile("[A-Z]{3}")


class WrongPrice(TeamfitError):
    """A price cannot be set as given; the message names the fix."""


@dataclass(frozen=True, slots=True)
class Price:
    """A model's price, from a time on. `holds`: it is the one of now."""

    model: str
    holds_from: datetime
    input_price: int
    output_price: int
    currency: str
    holds: bool = False


@dataclass(frozen=True, slots=True)
class PriceEffects:
    """This follows from a price.

    Attributes:
        calls_priced: calls on record that have no price and get one. Others keep theirs.
        before: the model's price until then, or the one of the same time that is replaced.
        holds_until: when its next price holds, which is set already.
    """

    calls_priced: Count
    before: Price | None
    holds_until: datetime | None


@dataclass(frozen=True, slots=True)
class Spent:
    """A month of an organization: tokens, and their cost in micro-units. Calls without a price are not in the cost."""

    period: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    maybe_billed_calls: int
    cost: int
    unpriced_calls: int
    currency: str | None


def micro_units(amount: str, *, name: str, most: int = _DEAREST) -> int:
    """Return a price for a million tokens, or another sum of money, in micro-units. Raises WrongPrice."""
    try:
        value = Decimal(amount) * MICRO
    except ArithmeticError:
        raise WrongPrice(f"{name}: {amount!r} is no number; write it as 2.50") from None
    if not value.is_finite() or not 0 <= value <= most * MICRO or value != int(value):
        raise WrongPrice(f"{name}: {amount} is not from 0 to {most} with at most six decimals")
    return int(value)


def budget_of(amount: str | None) -> int | None:
    """Return a month's budget in micro-units, or None if none is given. Raises WrongPrice."""
    return None if amount is None else micro_units(amount, name="budget", most=_LARGEST_BUDGET)


def kind_of(budget: int | None, given: str | None) -> str | None:
    """Return the kind of a month's budget. One that was given none is hard, as Postgres's `budget_of` has it."""
    return "hard" if budget is not None and given is None else given


def amount_of(micro_units: int) -> str:
    """Return a sum of money with two decimals, or as many more as it has."""
    whole = Decimal(micro_units) / MICRO
    return f"{whole:.2f}" if whole == round(whole, 2) else str(whole.normalize())


def spent_amount(micro_units: int) -> str:
    """Return a sum that was spent, for people.

    It has two decimals; below one unit, as many as show two figures of it.
    """
    whole = Decimal(micro_units) / MICRO
    return f"{whole:,.{min(max(2, 1 - whole.adjusted()), 6)}f}"


async def prices(database: Database, *, most: int | None = None) -> tuple[list[Price], Mapping[str, int]]:
    """Return all prices, and how many calls of which models have none.

    Args:
        database: where.
        most: up to how many calls of each model are counted; None: all of them.

    Raises:
        DependencyDown: Postgres is away.
    """
    async with database.transaction(for_values=True) as connection:
        return await _all(connection), await meter.without_price(connection, most=most)


async def effects_of_price(database: Database, price: Price) -> PriceEffects:
    """Say what would follow from a price; nothing is done.

    Raises:
        WrongPrice: it cannot be set so.
        DependencyDown: Postgres is away.
    """
    async with database.transaction(for_values=True) as connection:
        await _require_currency(connection, price.currency)
        calls = await meter.would_price(connection, price.model, price.holds_from, most=COUNTED + 1)
        return PriceEffects(Count.of(calls), *await _beside(connection, price))


async def set_price(database: Database, price: Price) -> int:
    """Set a price; return how many calls on record, which had none, have one now.

    Repeats are harmless. Calls that have a price keep it: what was billed does not change afterwards.

    Raises:
        WrongPrice: its currency is none, or other prices have another.
        DependencyDown: Postgres is away.
    """
    act = Act("llm.price", f"model {price.model}", effects=asdict(price))
    async with acting(database, act) as connection:
        await _require_currency(connection, price.currency)
        before, _ = await _beside(connection, price)
        await _queries.set_price(
            connection,
            model=price.model,
            holds_from=price.holds_from,
            input_price=price.input_price,
            output_price=price.output_price,
            currency=price.currency,
        )
        priced = await meter.price_again(connection, price.holds_from)
        act.effects |= {"before": before and asdict(before), "calls_priced": priced}
        return priced


async def _beside(connection: Connection, price: Price) -> tuple[Price | None, datetime | None]:
    """Return the model's price before this one, and when its next one holds."""
    others = [one for one in await _all(connection) if one.model == price.model]
    earlier = [one for one in others if one.holds_from <= price.holds_from]
    later = [one.holds_from for one in others if one.holds_from > price.holds_from]
    return max(earlier, key=lambda one: one.holds_from, default=None), min(later, default=None)


async def _all(connection: Connection) -> list[Price]:
    return [Price(**row) async for row in _queries.prices(connection)]


async def _require_currency(connection: Connection, wanted: str) -> None:
    if not _CURRENCY.fullmatch(wanted):
        raise WrongPrice("currency: is not of three capitals; write USD or EUR")
    other = await _queries.other_currency(connection, currency=wanted)
    if other is not None:
        raise WrongPrice(f"currency: there are prices in {other}, and none in {wanted}; use {other}")


async def currency(connection: Connection) -> str:
    """Return the currency of all prices. Raises WrongPrice: there are none, so no budget can be watched."""
    found = await _queries.other_currency(connection, currency="")
    if found is None:
        raise WrongPrice(
            "budget: no model has a price yet, so nothing of it could be counted; "
            "first `teamfit llm prices set MODEL … … --currency USD`"
        )
    return str(found)


async def spent(database: Database, organization_id: str) -> list[Spent]:
    """Return what an organization's calls have cost, the newest month first. Raises DependencyDown."""
    async with database.transaction() as connection:
        return [Spent(**row) async for row in _queries.spent(connection, organization_id=organization_id)]
