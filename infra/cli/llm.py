"""`teamfit llm prices`: what the tokens of each model cost."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson, DryRun, Yes, duration
from infra.cli.output import confirm, mended, print_json, print_table, second

if TYPE_CHECKING:
    from consumers.generation.meter import EndpointUse
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


app = typer.Typer()
llm_app = typer.Typer(help="What the fleet knows of the LLM endpoint.", no_args_is_help=True)
app.add_typer(llm_app, name="llm")
gate = typer.Typer(help="The gate: until when no worker calls, because the endpoint said so.", no_args_is_help=True)
llm_app.add_typer(gate, name="gate")
dialect = typer.Typer(help="How each endpoint is asked, as the fleet has learned.", no_args_is_help=True)
llm_app.add_typer(dialect, name="dialect")
hold = typer.Typer(help="Holds: which endpoints no worker calls, and who is to blame.", no_args_is_help=True)
llm_app.add_typer(hold, name="hold")
llm_app.add_typer(prices_app, name="prices")

Endpoint = Annotated[str | None, typer.Argument(help="Which one, as `show` names it; all by default.")]


@llm_app.command("endpoints")
@plain_errors()
def show_endpoints(
    hours: Annotated[int, typer.Option(min=1, max=24 * 31, help="How many hours back, this one included.")] = 24,
    *,
    as_json: AsJson = False,
) -> None:
    """Print each endpoint's state, calls, errors, latency, tokens, cost and limits."""
    from infra.cli.session import with_database
    from infra.operations.llm import endpoints
    from streams.jobs.admission import money

    found = with_database(lambda database: endpoints(database, hours))
    if as_json:
        print_json(found)
    elif not found:
        typer.echo(f"No endpoint was called within {hours} h.")
    else:
        columns = ("endpoint", "model", "state", "calls", "failed", "429", "s a call", "tokens in", "tokens out")
        rows = []
        for one in found:
            took = f"{one.seconds_per_call:.2f}" if one.seconds_per_call is not None else ""
            row = (one.endpoint, one.model, _state(one), one.calls, one.failed, one.refused, took)
            limits = (one.requests_per_minute, one.tokens_per_minute)
            shown = tuple("" if limit is None else f"{limit:.0f}" for limit in limits)
            cost = "" if one.cost is None else money(one.cost)
            rows.append((*row, one.prompt_tokens, one.completion_tokens, cost, *shown, one.held or ""))
        print_table((*columns, "cost", "requests/min", "tokens/min", "why"), rows)


def _state(one: "EndpointUse") -> str:
    if one.held:
        return "held"
    if one.closed_for:
        return f"closed for {one.closed_for.total_seconds():.1f} s"
    # The worker that could say why may be gone.
    return "works" if one.failed < one.calls else "all failed"


@gate.command("show")
@plain_errors()
def show_gate(*, as_json: AsJson = False) -> None:
    """Print until when each endpoint takes no calls."""
    from infra.cli.session import with_database
    from infra.operations.llm import gates

    found = with_database(gates)
    if as_json:
        print_json(found)
    elif not found:
        typer.echo("The gate is open: no endpoint has ever said when to come back.")
    else:
        rows = []
        for one in found:
            closed = f"closed for {one.closed_for.total_seconds():.1f} s" if one.closed_for else "open"
            rows.append((one.endpoint, closed, one.closed_until, one.reason))
        print_table(("endpoint", "gate", "until (UTC)", "reason"), rows)


@gate.command("open")
@plain_errors()
def open_gate(endpoint: Endpoint = None, *, yes: Yes = False) -> None:
    """Open the gate before its time, for an endpoint that named a wrong one.

    Workers that wait ask at once.
    """
    from infra.cli.session import with_database
    from infra.operations.llm import closed_gates, open_gates

    closed = with_database(lambda database: closed_gates(database, endpoint))
    if not closed:
        typer.echo("The gate is open: nothing was changed.")
        return
    for one in closed:
        typer.echo(f"{one.endpoint} is closed until {second(one.closed_until)} UTC ({one.reason}).")
    if not yes:
        confirm("Open it? The endpoint may answer 429 again, and then it closes again.")
    for name in with_database(lambda database: open_gates(database, closed)):
        typer.echo(f"{name} is open.")
    typer.echo("Generation workers that wait ask again within two seconds.")


@gate.command("close")
@plain_errors()
def close_gate(
    endpoint: Annotated[str, typer.Argument(help="Which one, as `teamfit llm endpoints` names it.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; others read it.")],
    lasts: Annotated[
        timedelta, typer.Option("--for", parser=duration, metavar="TIME", help="How long: 30m, 2h.")
    ] = timedelta(hours=1),
    yes: Yes = False,
) -> None:
    """Close the gate: no worker begins a call to this endpoint. Calls under way end; no attempt is spent."""
    from infra.cli.session import with_database
    from infra.operations.controls import Wish, effects_of, set_control

    wish = Wish("gate", endpoint, reason=reason, lasts=lasts)
    if not yes:
        effects = with_database(lambda database: effects_of(database, wish))
        typer.echo(f"{endpoint}: {effects['workers']} workers would begin no call for {lasts}.")
        confirm("Close it?")
    with_database(lambda database: set_control(database, wish))
    typer.echo(f"{endpoint} is closed for {lasts}. To open it: teamfit llm gate open {endpoint}")


@dialect.command("show")
@plain_errors()
def show_dialects(*, as_json: AsJson = False) -> None:
    """Print how each endpoint and model are asked, and why."""
    from infra.cli.session import with_database
    from infra.operations.llm import dialects

    found = with_database(dialects)
    if as_json:
        print_json(found)
    elif not found:
        typer.echo("Nothing is learned yet: the next call tries the strongest form first.")
    else:
        columns = (
            *("endpoint", "model", "setting", "form", "answers bounded by", "system message", "streams"),
            *("since (UTC)", "why"),
        )
        rows = (
            (one.endpoint, one.model, one.completion_format, one.form, one.answer_limit, one.takes_system)
            + (one.streams, one.learned_at, one.why)
            for one in found
        )
        print_table(columns, rows)


@dialect.command("forget")
@plain_errors()
def forget_dialect(endpoint: Endpoint = None, *, yes: Yes = False) -> None:
    """Forget what was learned, after an endpoint has changed; the next call learns it again."""
    from infra.cli.session import with_database
    from infra.operations.llm import forget_dialects

    if not yes:
        confirm(f"Forget how {endpoint or 'every endpoint'} is asked? The next call learns it again.")
    forgotten = with_database(lambda database: forget_dialects(database, endpoint))
    for name, model in forgotten:
        typer.echo(f"{mended(name)} {mended(model)} is forgotten.")
    typer.echo("Workers notice within half a minute." if forgotten else "Nothing was learned of it.")


@hold.command("show")
@plain_errors()
def show_holds(*, as_json: AsJson = False) -> None:
    """Print the endpoints that are held, the cause, and the next probe's time."""
    from infra.cli.session import with_database
    from infra.operations.llm import holds

    found = with_database(holds)
    if as_json:
        print_json(found)
    elif not found:
        typer.echo("No endpoint is held.")
    else:
        rows = []
        for one in found:
            probe = f"in {one.next_probe_in.total_seconds():.1f} s"
            rows.append((one.endpoint, one.model, one.blame, one.held_at, probe, one.sentence))
        print_table(("endpoint", "model", "to blame", "since (UTC)", "next probe", "why"), rows)
