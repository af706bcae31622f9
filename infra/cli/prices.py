"""`teamfit llm prices`: what the tokens of each model cost."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson, DryRun
from infra.cli.output import print_json, print_table

if TYPE_CHECKING:
    from infra.operations.prices import Price, PriceEffects

prices_app = typer.Typer(help="What a million tokens of each model cost, from when on.", no_args_is_help=True)


@prices_app.command("list")
@plain_errors()
def list_prices(*, as_json: AsJson = False) -> None:
    """Print every price, and the models whose calls have none."""
    from dataclasses import asdict

    from infra.cli.session import with_database
    from infra.operations.prices import MICRO, prices

    found, without = with_database(prices)
    if as_json:
        print_json({"prices": [asdict(one) for one in found], "calls_without_price": without})
        return
    if found:
        columns = ("model", "from (UTC)", "a million in", "a million out", "currency", "holds")
        rows = (
            (one.model, one.holds_from, f"{one.input_price / MICRO:f}", f"{one.output_price / MICRO:f}", one.currency)
            + ("now" if one.holds else "",)
            for one in found
        )
        print_table(columns, rows)
    else:
        typer.echo("No model has a price. For example: teamfit llm prices set gpt-4o-mini 0.15 0.60 --currency USD")
    for model, calls in without.items():
        typer.echo(f"{model or 'an unknown model'}: {calls} calls have no price.")


@prices_app.command("set")
@plain_errors()
def set_one(
    model: Annotated[str, typer.Argument(help="As its answers name it.")],
    input_price: Annotated[str, typer.Argument(help="A million tokens of prompts, such as 0.15.")],
    output_price: Annotated[str, typer.Argument(help="A million tokens of answers, such as 0.60.")],
    *,
    currency: Annotated[str, typer.Option(help="The same for all prices.")] = "USD",
    since: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="Calls begun since cost this; today if out.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Set a model's price from a day on (UTC). Calls on record that have none are priced; others keep theirs."""
    from infra.cli.session import with_database
    from infra.operations.prices import Price, effects_of_price, micro_units, set_price

    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    price = Price(
        model=model,
        holds_from=today if since is None else since.replace(tzinfo=UTC),
        input_price=micro_units(input_price, name="input price"),
        output_price=micro_units(output_price, name="output price"),
        currency=currency,
    )
    if dry_run:
        _print_effects(price, with_database(lambda database: effects_of_price(database, price)))
        return
    priced = with_database(lambda database: set_price(database, price))
    typer.echo(f"{model} costs {input_price} and {output_price} {currency} from {price.holds_from:%Y-%m-%d} on (UTC).")
    if priced:
        typer.echo(f"{priced} calls on record have a price now.")


def _print_effects(price: "Price", effects: "PriceEffects") -> None:
    from infra.operations.prices import amount_of

    until = f" until {effects.holds_until:%Y-%m-%d}, when its next price holds" if effects.holds_until else ""
    typer.echo(f"{price.model} would cost this from {price.holds_from:%Y-%m-%d} on (UTC){until}.")
    before = effects.before
    if before is not None:
        costs = f"{amount_of(before.input_price)} and {amount_of(before.output_price)} {before.currency}"
        typer.echo(f"Before: {costs}, from {before.holds_from:%Y-%m-%d} on. Calls that have a price keep it.")
    typer.echo(f"{effects.calls_priced} calls on record have no price and would get one. Nothing was done.")
