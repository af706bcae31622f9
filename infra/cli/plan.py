"""`teamfit plan`: what organizations of a plan are given of the fleet."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson, Budget, BudgetKind, DryRun, readable_budget
from infra.cli.output import print_json, print_table

if TYPE_CHECKING:
    from infra.operations.plans import PlanShare, ShareEffects

_LONGEST = 64

app = typer.Typer()
plans = typer.Typer(help="Set what organizations of a plan are given of the fleet.", no_args_is_help=True)
app.add_typer(plans, name="plan")


def _name(text: str) -> str:
    if not 0 < len(text.strip()) <= _LONGEST or "\0" in text:
        raise typer.BadParameter("give a plan's name, of 1 to 64 characters")
    return text.strip()


Plan = Annotated[str, typer.Argument(help="The plan, as subscriptions name it.", callback=_name)]


@plans.command("set")
@plain_errors()
def set_plan(
    plan: Plan,
    *,
    weight: Annotated[
        float | None, typer.Option(help="Share of each against others', while both wait.", min=0.001, max=1000)
    ] = None,
    max_in_flight: Annotated[
        int | None,
        typer.Option(help="How many runs of each are worked on at once; 0 pauses them.", min=0, max=2**31 - 1),
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(help="How many requests each may send; 0 refuses all.", min=0, max=1_000_000)
    ] = None,
    max_waiting: Annotated[
        int | None, typer.Option(help="How many runs of each may wait for their turn.", min=0, max=2**31 - 1)
    ] = None,
    budget: Budget = None,
    budget_kind: BudgetKind = None,
    no_cap: Annotated[bool, typer.Option("--no-cap", help="Any number of runs at once.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Change what is given of a plan; the rest stays. What an organization was given itself goes before it."""
    from infra.cli.session import with_database
    from infra.operations.plans import PlanShare, effects_of_share, set_share
    from infra.operations.prices import budget_of

    if no_cap and max_in_flight is not None:
        raise typer.BadParameter("give --max-in-flight or --no-cap, not both")
    given = PlanShare(*(plan, weight, max_in_flight, requests_per_minute, max_waiting), budget_of(budget), budget_kind)
    if given == PlanShare(plan) and not no_cap:
        raise typer.BadParameter("give at least one option that changes something")
    if dry_run:
        _print_effects(with_database(lambda one: effects_of_share(one, given, no_cap=no_cap)), as_json=as_json)
        return
    known = with_database(lambda database: set_share(database, given, no_cap=no_cap))
    if as_json:
        print_json(known)
    else:
        _print_rows([known])


@plans.command("list")
@plain_errors()
def list_plans(*, as_json: AsJson = False) -> None:
    """List the plans that something is set for."""
    from infra.cli.session import with_database
    from infra.operations.plans import shares

    found = with_database(shares)
    if as_json:
        print_json(found)
    else:
        _print_rows(found)


@plans.command("forget")
@plain_errors()
def forget_plan(plan: Plan, *, dry_run: DryRun = False) -> None:
    """Forget all that was set for a plan, its intake limits and budget too."""
    from infra.cli.session import with_database
    from infra.operations.plans import effects_of_forgetting, forget_share

    if dry_run:
        _print_effects(with_database(lambda database: effects_of_forgetting(database, plan)), as_json=False)
        return
    with_database(lambda database: forget_share(database, plan))
    typer.echo(f"{plan}: nothing is set for it any more")


def _print_rows(found: "Sequence[PlanShare]") -> None:
    if not found:
        typer.echo("None yet: every plan has weight 1 and no limits.")
        return
    columns = ["plan", "weight", "max in flight", "requests a minute", "max waiting", "budget", "kind"]
    print_table(columns, (readable_budget(asdict(one)).values() for one in found))


def _print_effects(effects: "ShareEffects", *, as_json: bool) -> None:
    if as_json:
        print_json(effects)
        return
    for when, share in (("Now", effects.before), ("Then", effects.after)):
        values = {} if share is None else {name: one for name, one in asdict(share).items() if one is not None}
        shown = readable_budget({"budget": None, **values}).items()
        said = [f"{name.replace('_', ' ')} {value}" for name, value in shown if name != "plan" and value is not None]
        typer.echo(f"{when}: {', '.join(said) or 'weight 1 and no limits'}.")
    typer.echo(
        f"{effects.organizations} organizations have the plan, {effects.with_their_own} of them values of their own; "
        f"{effects.waiting} runs wait, {effects.in_flight} are worked on. Nothing was done."
    )
