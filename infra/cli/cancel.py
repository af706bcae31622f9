"""`teamfit cancel` cancels many jobs at once: freeze the set, look, apply. It can be stopped and resumed."""

from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

from infra.cli.asking import confirm
from infra.cli.errors import plain_errors
from infra.cli.job_filter import filtered_live_jobs
from infra.cli.options import AsJson, MadeBefore, MostPlans, PlanId, Yes, rate
from infra.cli.output import print_table
from infra.cli.plan_output import print_organizations, print_plans, print_standing, tell_unknown, with_progress

if TYPE_CHECKING:
    from infra.operations.cancel_plans import CancelPlan
    from infra.operations.job_search import JobFilter
    from infra.postgres import Database

app = typer.Typer()
cancels = typer.Typer(help="Cancel many jobs at once: plan, look, apply. Nothing is deleted.", no_args_is_help=True)
app.add_typer(cancels, name="cancel")

_RATE: Final = 500.0


@cancels.command("plan")
@plain_errors()
@filtered_live_jobs
def plan_cancellation(*, chosen: "JobFilter", as_json: AsJson = False) -> None:
    """Freeze the live jobs that a filter finds, and show what would follow. None is cancelled.

    Without an option it finds all that have not ended.
    """
    from infra.cli.session import operator, with_database
    from infra.operations.cancel_plans import cancel_plans

    plan = with_database(lambda database: cancel_plans(database).make(chosen, by=operator()))
    if not plan.total:
        tell_unknown(chosen)
    if as_json:
        typer.echo(plan.model_dump_json(indent=2))
        return
    _print(plan)
    if plan.total:
        typer.echo(f"None is cancelled yet. To do it: teamfit cancel apply {plan.id} --because '…'")
    else:
        typer.echo("The filter finds no job that has not ended; there is nothing to cancel.")


@cancels.command("apply")
@plain_errors()
def apply_plan(
    plan: PlanId,
    *,
    because: Annotated[
        str, typer.Option("--because", "--reason", help="Why; the customers read it in their jobs' status.")
    ],
    rate: Annotated[
        float | None, typer.Option(parser=rate, metavar="N/s", help="Jobs per second; 500/s if not given.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Cancel exactly what a plan showed. Ctrl-C stops after the batch under way; the same command goes on from there.

    Jobs that have ended meanwhile, or have begun anew, stay as they are.
    """
    from infra.cli.session import with_database
    from infra.operations.cancel_plans import cancel_plans

    at_rate = _RATE if rate is None else rate
    known = with_database(lambda database: cancel_plans(database).get(plan))
    if known.state == "finished":
        typer.echo(f"Plan {plan} is finished: {known.cancelled} of {known.total} jobs were cancelled.")
        return
    if not yes and known.state != "aborted":
        confirm(f"Cancel {known.left} jobs at {at_rate:g}/s?")
    known = with_database(lambda database: _applied(database, plan, because, at_rate))
    others = known.total - known.left - known.cancelled
    typer.echo(
        f"Plan {plan} is {known.state}: {known.cancelled} of {known.total} jobs are cancelled, {others} had ended or "
        f"begun anew, {known.left} are left."
    )


@cancels.command("status")
@plain_errors()
def show_status(
    plan: PlanId,
    *,
    jobs: Annotated[int, typer.Option(help="How many of its jobs to list, in their order.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Print a plan, what it said, and how far it is."""
    from infra.cli.session import with_database
    from infra.operations.cancel_plans import cancel_plans

    page = with_database(lambda database: cancel_plans(database).page(plan, limit=jobs))
    if as_json:
        typer.echo(page.model_dump_json(indent=2))
        return
    _print(page)
    if page.items:
        columns = ("place", "job", "organization", "run", "what became of it", "when (UTC)")
        rows = ((one.position, one.job_id, one.organization_id, one.run, one.result, one.done_at) for one in page.items)
        print_table(columns, rows)


@cancels.command("list")
@plain_errors()
def list_plans(*, limit: MostPlans = 50, before: MadeBefore = None, as_json: AsJson = False) -> None:
    """List plans, the latest first."""
    from infra.cli.session import with_database
    from infra.operations.cancel_plans import cancel_plans

    found = with_database(lambda database: cancel_plans(database).latest(limit=limit, before=before))
    print_plans("cancel", found, "jobs", no_filter="all that had not ended", as_json=as_json)


@cancels.command("abort")
@plain_errors()
def abort_plan(plan: PlanId) -> None:
    """End a plan before its time. What it has cancelled stays so; whoever applies it stops before the next batch."""
    from infra.cli.session import with_database
    from infra.operations.cancel_plans import cancel_plans

    known = with_database(lambda database: cancel_plans(database).abort(plan))
    typer.echo(f"Plan {plan} is {known.state}; {known.cancelled} of its {known.total} jobs were cancelled.")


async def _applied(database: "Database", plan_id: UUID, because: str, rate: float) -> "CancelPlan":
    from infra.cli.session import opened_broker
    from infra.operations.cancel_plans import CancelApplier
    from producers.cancel.cancellation import Cancellation

    async with opened_broker("cancel") as broker:
        applier = CancelApplier(Cancellation(database, broker, database.clock))
        return await with_progress(
            "cancel",
            "cancelling",
            plan_id,
            lambda report: applier.apply(plan_id, because=because, rate=rate, report=report),
        )


def _print(plan: "CancelPlan") -> None:
    effects = plan.effects
    print_standing(plan, "jobs")
    typer.echo(
        f"Jobs: {effects.jobs}, of which an LLM works for {effects.processing}; "
        f"units of quota that are released: {effects.quota}"
    )
    print_organizations(effects.organizations, ("organization", "jobs", "worked on", "quota released"))
