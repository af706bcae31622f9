"""Options that set a month's budget, for an organization and for a plan."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

BudgetKind = Annotated[
    Literal["hard", "soft"] | None,
    typer.Option(help="hard: beyond it nothing runs (the default); soft: 80 and 100 % of it are told."),
]
Budget = Annotated[
    str | None,
    typer.Option(help="What LLM calls may cost in a month (UTC), such as 50.00, in the currency of `llm prices`."),
]


def readable(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row in which the budget is no longer in micro-units."""
    from infra.operations.prices import amount_of

    budget = row["budget"]
    return row if budget is None else {**row, "budget": amount_of(budget)}
