"""Options that set a month's budget, for an organization and for a plan."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import typer

_LARGEST: Final = 1_000_000_000

BudgetKind = Annotated[
    Literal["hard", "soft"] | None,
    typer.Option(help="hard: beyond it nothing runs (the default); soft: 80 and 100 % of it are told."),
]
Budget = Annotated[
    str | None,
    typer.Option(help="What LLM calls may cost in a month (UTC), such as 50.00, in the currency of `llm prices`."),
]


def micro(budget: str | None) -> int | None:
    """Return a budget in micro-units, as the tables have it. Raises WrongPrice."""
    from infra.operations.prices import micro_units

    return None if budget is None else micro_units(budget, name="budget", most=_LARGEST)


def readable(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row in which the budget is no longer in micro-units."""
    from infra.operations.prices import amount_of

    budget = row["budget"]
    return row if budget is None else {**row, "budget": amount_of(budget)}
