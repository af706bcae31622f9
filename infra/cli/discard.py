"""`teamfit discard` discards many failed events: freeze the set, look, apply. It can be stopped and resumed."""

from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

from infra.cli.asking import confirm
from infra.cli.errors import plain_errors
from infra.cli.options import AsJson, MadeBefore, MostPlans, PlanId, Yes, filtered, rate
from infra.cli.output import print_table
from infra.cli.plan_output import print_organizations, print_plans, print_standing, tell_unknown, with_progress

if TYPE_CHECKING:
    from infra.operations.discard_plans import DiscardPlan
    from infra.postgres import Database
    from producers.replay.failed import Filter

app = typer.Typer()
discards = typer.Typer(help="Discard many failed events: plan, look, apply. They stay on record.", no_args_is_help=True)
app.add_typer(discards, name="discard")

_RATE: Final = 500.0


@discards.command("plan")
@plain_errors()
@filtered
def plan_discard(
    failed_events: Annotated[
        list[UUID] | None, typer.Argument(help="Only these of what the options find; all if none is given.")
    ] = None,
    *,
    chosen: "Filter",
    as_json: AsJson = False,
) -> None:
    """Freeze the open failed events that a filter finds, and show what would follow. None is discarded."""
    from infra.cli.session import operator, with_database
    from infra.operations.discard_plans import DiscardChoice, discard_plans

    choice = DiscardChoice(**chosen.model_dump(), failed_events=failed_events or None)
    plan = with_database(lambda database: discard_plans(database).make(choice, by=operator()))
    if not plan.total:
        tell_unknown(chosen)
    if as_json:
        typer.echo(plan.model_dump_json(indent=2))
        return
    _print(plan)
    if plan.total:
        typer.echo(f"None is discarded yet. To do it: teamfit discard apply {plan.id} --because '…'")
    else:
        typer.echo("The filter finds no open failed event; there is nothing to discard.")


@discards.command("apply")
@plain_errors()
def apply_plan(
    plan: PlanId,
    *,
    because: Annotated[str, typer.Option("--because", "--reason", help="Why, for those who ask later.")],
    rate: Annotated[
        float | None, typer.Option(parser=rate, metavar="N/s", help="Events per second; 500/s if not given.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Discard exactly what a plan showed. Ctrl-C stops after the batch under way; the same command goes on from there.

    Events that have failed again meanwhile, or that somebody has dealt with, stay as they are.
    """
    from infra.cli.session import with_database
    from infra.operations.discard_plans import discard_plans

    at_rate = _RATE if rate is None else rate
    known = with_database(lambda database: discard_plans(database).get(plan))
    if known.state == "finished":
        typer.echo(f"Plan {plan} is finished: {known.discarded} of {known.total} failed events were discarded.")
        return
    if not yes and known.state != "aborted":
        confirm(f"Discard {known.left} failed events at {at_rate:g}/s?")
    known = with_database(lambda database: _applied(database, plan, because, at_rate))
    changed = known.total - known.left - known.discarded
    typer.echo(
        f"Plan {plan} is {known.state}: {known.discarded} of {known.total} failed events are discarded, {changed} had "
        f"changed, {known.left} are left."
    )


@discards.command("status")
@plain_errors()
def show_status(
    plan: PlanId,
    *,
    events: Annotated[int, typer.Option(help="How many of its events to list, in their order.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Print a plan, what it said, and how far it is."""
    from infra.cli.session import with_database
    from infra.operations.discard_plans import discard_plans

    page = with_database(lambda database: discard_plans(database).page(plan, limit=events))
    if as_json:
        typer.echo(page.model_dump_json(indent=2))
        return
    _print(page)
    if page.items:
        columns = ("place", "failed event", "stage", "error", "organization", "what became of it", "when (UTC)")
        rows = (
            (one.position, one.failed_event_id, one.stage, one.error_type, one.organization_id, one.result, one.done_at)
            for one in page.items
        )
        print_table(columns, rows)


@discards.command("list")
@plain_errors()
def list_plans(*, limit: MostPlans = 50, before: MadeBefore = None, as_json: AsJson = False) -> None:
    """List plans, the latest first."""
    from infra.cli.session import with_database
    from infra.operations.discard_plans import discard_plans

    found = with_database(lambda database: discard_plans(database).latest(limit=limit, before=before))
    print_plans("discard", found, "events", no_filter="all that were open", as_json=as_json)


@discards.command("abort")
@plain_errors()
def abort_plan(plan: PlanId) -> None:
    """End a plan before its time. What it has discarded stays so; whoever applies it stops before the next batch."""
    from infra.cli.session import with_database
    from infra.operations.discard_plans import discard_plans

    known = with_database(lambda database: discard_plans(database).abort(plan))
    typer.echo(f"Plan {plan} is {known.state}; {known.discarded} of its {known.total} failed events were discarded.")


async def _applied(database: "Database", plan_id: UUID, because: str, rate: float) -> "DiscardPlan":
    from infra.operations.discard_plans import apply_discards

    return await with_progress(
        "discard",
        "discarding",
        plan_id,
        lambda report: apply_discards(database, plan_id, because=because, rate=rate, report=report),
    )


def _print(plan: "DiscardPlan") -> None:
    effects = plan.effects
    print_standing(plan, "failed events")
    typer.echo(
        f"Failed events: {effects.events}, about {effects.jobs} jobs, whose status stays; no plan replays these "
        "failures any more"
    )
    if effects.kinds:
        print_table(("stage", "error", "events"), ((one.stage, one.error_type, one.events) for one in effects.kinds))
    print_organizations(effects.organizations, ("organization", "events", "jobs"))
