"""`teamfit cancel` and `teamfit discard`: freeze a set of jobs or failed events, look, apply.

Applying can be stopped and resumed.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson, MadeBefore, MostPlans, PlanId, Yes, filtered, filtered_live_jobs, rate
from infra.cli.output import confirm, print_table
from infra.cli.plan_output import print_organizations, print_plans, print_standing, tell_unknown, with_progress

if TYPE_CHECKING:
    from infra.operations.cancel_plans import CancelPlan
    from infra.operations.discard_plans import DiscardPlan
    from infra.operations.job_search import JobFilter
    from infra.postgres import Database
    from producers.replay.failed import Filter

RATE: Final = 500.0

app = typer.Typer()
cancels = typer.Typer(help="Cancel many jobs at once: plan, look, apply. Nothing is deleted.", no_args_is_help=True)
discards = typer.Typer(help="Discard many failed events: plan, look, apply. They stay on record.", no_args_is_help=True)
app.add_typer(cancels, name="cancel")
app.add_typer(discards, name="discard")


@dataclass(frozen=True, slots=True)
class Kind:
    """The commands about plans of one kind differ in these.

    Attributes:
        command: the group's name.
        doing: what the progress bar says.
        done: what an item is whose turn has come.
        items: what a plan is for.
        counted: the same in a word, which is an option's name too.
        meanwhile: what had happened to the items that were left as they are.
        left_alone: the same as a sentence of the help.
        no_filter: what a plan without a filter has chosen.
        none: what a filter has not found.
        why: the help of `--because`.
        plans: the plans in a database.
        apply: applies one.
        effects: prints what would follow.
        columns: of the table of items.
        row: an item's values in it.
    """

    command: str
    doing: str
    done: str
    items: str
    counted: str
    meanwhile: str
    left_alone: str
    no_filter: str
    none: str
    why: str
    plans: Callable[["Database"], Any]
    apply: Callable[..., Awaitable[Any]]
    effects: Callable[[Any], None]
    columns: Sequence[str]
    row: Callable[[Any], Sequence[object]]


def _make(kind: Kind, chosen: "JobFilter | Filter", *, as_json: bool) -> None:
    """Freeze what a filter finds, and print what would follow."""
    from infra.cli.session import operator, with_database

    plan = with_database(lambda database: kind.plans(database).make(chosen, by=operator()))
    if not plan.total:
        tell_unknown(chosen)
    if as_json:
        typer.echo(plan.model_dump_json(indent=2))
        return
    _print(kind, plan)
    if plan.total:
        typer.echo(f"None is {kind.done} yet. To do it: teamfit {kind.command} apply {plan.id} --because '…'")
    else:
        typer.echo(f"The filter finds {kind.none}; there is nothing to {kind.command}.")


def _add_apply(group: typer.Typer, kind: Kind) -> None:

    @group.command(
        "apply",
        help=f"{kind.command.capitalize()} exactly what a plan showed. Ctrl-C stops after the batch under way; the "
        f"same command goes on from there.\n\n{kind.left_alone}",
    )
    @plain_errors()
    def apply_plan(
        plan: PlanId,
        *,
        because: Annotated[str, typer.Option("--because", "--reason", help=kind.why)],
        rate: Annotated[
            float | None,
            typer.Option(
                parser=rate,
                metavar="N/s",
                help=f"{kind.counted.capitalize()} per second; {RATE:g}/s if not given.",
            ),
        ] = None,
        yes: Yes = False,
    ) -> None:
        from infra.cli.session import with_database

        at_rate = RATE if rate is None else rate
        known = with_database(lambda database: kind.plans(database).get(plan))
        if known.state == "finished":
            typer.echo(f"Plan {plan} is finished: {known.done} of {known.total} {kind.items} were {kind.done}.")
            return
        if not yes and known.state != "aborted":
            confirm(f"{kind.command.capitalize()} {known.left} {kind.items} at {at_rate:g}/s?")
        known = with_database(lambda database: _applied(kind, database, plan, because, at_rate))
        others = known.total - known.left - known.done
        typer.echo(
            f"Plan {plan} is {known.state}: {known.done} of {known.total} {kind.items} are {kind.done}, {others} had "
            f"{kind.meanwhile}, {known.left} are left."
        )


def _add_others(group: typer.Typer, kind: Kind) -> None:
    @group.command("status", help="Print a plan, what it said, and how far it is.")
    @plain_errors()
    def show_status(
        plan: PlanId,
        *,
        items: Annotated[
            int,
            typer.Option(f"--{kind.counted}", help=f"How many of its {kind.counted} to list, in their order.", min=0),
        ] = 0,
        as_json: AsJson = False,
    ) -> None:
        from infra.cli.session import with_database

        page = with_database(lambda database: kind.plans(database).page(plan, limit=items))
        if as_json:
            typer.echo(page.model_dump_json(indent=2))
            return
        _print(kind, page)
        if page.items:
            print_table(kind.columns, map(kind.row, page.items))

    @group.command("list", help="List plans, the latest first.")
    @plain_errors()
    def list_plans(*, limit: MostPlans = 50, before: MadeBefore = None, as_json: AsJson = False) -> None:
        from infra.cli.session import with_database

        found = with_database(lambda database: kind.plans(database).latest(limit=limit, before=before))
        print_plans(kind.command, found, kind.counted, no_filter=kind.no_filter, as_json=as_json)

    @group.command(
        "abort",
        help=f"End a plan before its time. What it has {kind.done} stays so; whoever applies it stops before the next "
        "batch.",
    )
    @plain_errors()
    def abort_plan(plan: PlanId) -> None:
        from infra.cli.session import with_database

        known = with_database(lambda database: kind.plans(database).abort(plan))
        typer.echo(f"Plan {plan} is {known.state}; {known.done} of its {known.total} {kind.items} were {kind.done}.")


async def _applied(kind: Kind, database: "Database", plan_id: UUID, because: str, rate: float) -> Any:  # noqa: ANN401 - each kind of plan has a model of its own
    return await with_progress(
        kind.command,
        kind.doing,
        plan_id,
        lambda report: kind.apply(database, plan_id, because=because, rate=rate, report=report),
    )


def _print(kind: Kind, plan: Any) -> None:  # noqa: ANN401 - the same
    print_standing(plan, kind.items)
    kind.effects(plan)


# --- cancellations ---


@cancels.command("plan")
@plain_errors()
@filtered_live_jobs
def plan_cancellation(*, chosen: "JobFilter", as_json: AsJson = False) -> None:
    """Freeze the live jobs that a filter finds, and show what would follow. None is cancelled.

    Without an option it finds all that have not ended.
    """
    _make(_CANCEL, chosen, as_json=as_json)


def _cancel_plans(database: "Database") -> Any:  # noqa: ANN401 - the same
    from infra.operations.cancel_plans import cancel_plans

    return cancel_plans(database)


async def _apply_cancel(database: "Database", plan_id: UUID, **how: Any) -> "CancelPlan":  # noqa: ANN401 - the same
    from infra.cli.session import opened_broker
    from infra.operations.cancel_plans import CancelApplier
    from producers.cancellation import Cancellation

    async with opened_broker("cancel") as broker:
        return await CancelApplier(Cancellation(database, broker, database.clock)).apply(plan_id, **how)


def _print_cancel_effects(plan: "CancelPlan") -> None:
    effects = plan.effects
    typer.echo(
        f"Jobs: {effects.jobs}, of which an LLM works for {effects.processing}; "
        f"units of quota that are released: {effects.quota}"
    )
    print_organizations(effects.organizations, ("organization", "jobs", "worked on", "quota released"))


_CANCEL: Final = Kind(
    command="cancel",
    doing="cancelling",
    done="cancelled",
    items="jobs",
    counted="jobs",
    meanwhile="ended or begun anew",
    left_alone="Jobs that have ended meanwhile, or have begun anew, stay as they are.",
    no_filter="all that had not ended",
    none="no job that has not ended",
    why="Why; the customers read it in their jobs' status.",
    plans=_cancel_plans,
    apply=_apply_cancel,
    effects=_print_cancel_effects,
    columns=("place", "job", "organization", "run", "what became of it", "when (UTC)"),
    row=lambda one: (one.position, one.job_id, one.organization_id, one.run, one.result, one.done_at),
)
_add_apply(cancels, _CANCEL)
_add_others(cancels, _CANCEL)


# --- discards ---


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
    from infra.operations.discard_plans import DiscardChoice

    choice = DiscardChoice(**chosen.model_dump(), failed_events=failed_events or None)
    _make(_DISCARD, choice, as_json=as_json)


def _discard_plans(database: "Database") -> Any:  # noqa: ANN401 - the same
    from infra.operations.discard_plans import discard_plans

    return discard_plans(database)


async def _apply_discard(database: "Database", plan_id: UUID, **how: Any) -> "DiscardPlan":  # noqa: ANN401 - the same
    from infra.operations.discard_plans import apply_discards

    return await apply_discards(database, plan_id, **how)


def _print_discard_effects(plan: "DiscardPlan") -> None:
    effects = plan.effects
    typer.echo(
        f"Failed events: {effects.events}, about {effects.jobs} jobs, whose status stays; no plan replays these "
        "failures any more"
    )
    if effects.kinds:
        print_table(("stage", "error", "events"), ((one.stage, one.error_type, one.events) for one in effects.kinds))
    print_organizations(effects.organizations, ("organization", "events", "jobs"))


_DISCARD: Final = Kind(
    command="discard",
    doing="discarding",
    done="discarded",
    items="failed events",
    counted="events",
    meanwhile="changed",
    left_alone="Events that have failed again meanwhile, or that somebody has dealt with, stay as they are.",
    no_filter="all that were open",
    none="no open failed event",
    why="Why, for those who ask later.",
    plans=_discard_plans,
    apply=_apply_discard,
    effects=_print_discard_effects,
    columns=("place", "failed event", "stage", "error", "organization", "what became of it", "when (UTC)"),
    row=lambda one: (
        one.position, one.failed_event_id, one.stage, one.error_type, one.organization_id, one.result, one.done_at,
    ),
)  # fmt: skip
_add_apply(discards, _DISCARD)
_add_others(discards, _DISCARD)
