"""`teamfit replay` shows a plan's effects, then applies it. It can be stopped and resumed."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson, MadeBefore, MostPlans, PlanId, Yes, filtered, rate
from infra.cli.output import confirm, out, second

if TYPE_CHECKING:
    from infra.postgres import Database
    from producers.replay.apply import Progress
    from producers.replay.effects import Effects
    from producers.replay.failed import Filter
    from producers.replay.plans import Plan, PlanItem

app = typer.Typer()
replay = typer.Typer(help="Bring failed events back: plan, look, apply.", no_args_is_help=True)
app.add_typer(replay, name="replay")

_LONGEST_TABLE: Final = 20

# A large batch over a slow line; no client waits for an answer meanwhile.
_PUBLISH_TIMEOUT: Final = timedelta(seconds=30)


@replay.command("plan")
@plain_errors()
@filtered
def plan_replay(*, chosen: "Filter", as_json: AsJson = False) -> None:
    """Choose open failed events, show the effects of a replay, and keep the plan. Nothing is sent."""
    from infra.cli.plan_output import tell_unknown
    from infra.cli.session import operator, with_database
    from producers.replay.plans import Plans

    plan = with_database(lambda database: Plans(database, database.clock).make(chosen, by=operator()))
    if not plan.total:
        tell_unknown(chosen)
    if as_json:
        typer.echo(plan.model_dump_json(indent=2))
        return
    _print(plan)
    if plan.total:
        typer.echo(f"Nothing was sent. To send it: teamfit replay apply {plan.id} --rate 100/s")
    else:
        typer.echo("The plan has nothing to send. `teamfit failed list` has the open failed events.")


@replay.command("list")
@plain_errors()
def list_plans(*, limit: MostPlans = 50, before: MadeBefore = None, as_json: AsJson = False) -> None:
    """List plans, the latest first."""
    from infra.cli.plan_output import print_plans
    from infra.cli.session import with_database
    from producers.replay.plans import Plans

    found = with_database(lambda database: Plans(database, database.clock).latest(limit=limit, before=before))
    column, no_filter = "failed events found", "all that were open"
    print_plans("replay", found, "events", column=column, no_filter=no_filter, as_json=as_json)


@replay.command("apply")
@plain_errors()
def apply_plan(
    plan: PlanId,
    *,
    rate: Annotated[float, typer.Option(parser=rate, metavar="N/s", help="Events per second, such as 100/s.")],
    yes: Yes = False,
) -> None:
    """Send exactly what a plan showed. Ctrl-C stops after the batch under way; the same command goes on from there.

    Refused if anything in the plan changed since it was made: an event was replayed, discarded or failed again, or its
    job has moved on.
    """
    from infra.cli.session import with_database
    from producers.replay.plans import Plans

    known = with_database(lambda database: Plans(database, database.clock).get(plan))
    if known.state == "finished":
        typer.echo(f"Plan {plan} was finished at {known.ended_at:%Y-%m-%d %H:%M:%S} UTC: nothing was sent.")
        return
    if not yes and known.state != "aborted":
        confirm(f"Send {known.total - known.sent} events at {rate:g}/s?")
    known = with_database(lambda database: _applied(database, plan, rate))
    typer.echo(f"Plan {plan} is {known.state}: {known.sent} of {known.total} events are sent.")


@replay.command("status")
@plain_errors()
def show_status(
    plan: PlanId,
    *,
    events: Annotated[int, typer.Option(help="How many of its events to list, in the order of sending.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Print a plan, what it said, and how far it is."""
    from infra.cli.session import with_database
    from producers.replay.plans import Plans

    page = with_database(lambda database: Plans(database, database.clock).page(plan, limit=events))
    if as_json:
        typer.echo(page.model_dump_json(indent=2))
        return
    _print(page)
    if page.items:
        out().print(_item_table(page.items))


@replay.command("abort")
@plain_errors()
def abort_plan(plan: PlanId) -> None:
    """End a plan before its time. What it has sent stays sent; whoever is applying it stops before the next batch."""
    from infra.cli.session import with_database
    from producers.replay.plans import Plans

    known = with_database(lambda database: Plans(database, database.clock).abort(plan))
    typer.echo(f"Plan {plan} is {known.state}; {known.sent} of its {known.total} events were sent.")


async def _applied(database: "Database", plan_id: UUID, rate: float) -> "Plan":
    import asyncio

    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from infra.cli.session import opened_broker
    from producers.replay.apply import Replays

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    async with opened_broker("replay", limit=_PUBLISH_TIMEOUT) as broker:
        with Bar(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("sending", total=None)

            def report(progress: "Progress") -> None:
                waiting = f"waiting for quota of {progress.waiting} jobs" if progress.waiting else "sending"
                bar.update(task, total=progress.total, completed=progress.sent, description=waiting)

            try:
                return await Replays(database, broker, database.clock).apply(plan_id, rate=rate, report=report)
            except asyncio.CancelledError:
                typer.echo(f"Stopped. `teamfit replay apply {plan_id}` goes on from here.", err=True)
                raise


def _print(plan: "Plan") -> None:
    console = out()
    console.print(f"Plan {plan.id}, made by {plan.created_by} at {second(plan.created_at)} UTC", style="bold")
    console.print(f"State: {plan.state}, {plan.sent} of {plan.total} events sent\n")
    for title, table in _tables(plan.effects):
        if table.row_count:
            console.print(title, style="bold")
            console.print(table)
            console.print()
    _print_consequences(console, plan.effects)


def _tables(effects: "Effects") -> list[tuple[str, Table]]:
    from producers.replay.effects import BECAUSE

    return [
        _table(
            f"{effects.events} failed events, by stage and error",
            ("stage", "error", "events"),
            [(one.stage, one.error_type, one.events) for one in effects.by_error],
        ),
        _table(
            "By organization",
            ("organization", "events"),
            [(one.organization_id or "(unknown)", one.events) for one in effects.by_organization],
        ),
        _table(
            "Not sent",
            ("why", "events", "jobs"),
            [
                (BECAUSE.get(one.because, one.because), one.events, ", ".join(map(str, one.job_ids[:3])))
                for one in effects.excluded
            ],
        ),
        _table(
            "Quota that the reruns would take",
            ("organization", "units", "given back first", "left this month", "would be rejected"),
            [(one.organization_id, one.units, one.given_back, one.units_left, one.short) for one in effects.quota],
        ),
        _table(
            "Events downstream",
            ("topic", "for the group", "records", "when"),
            [
                *((one.topic, one.group or "(all)", one.records, "sent by the plan") for one in effects.sends),
                *((one.topic, "(all)", one.records, "follow, if all complete") for one in effects.follows),
            ],
        ),
        _table(
            "Behind these: other failed events of the same jobs, not in this plan",
            ("stage", "error", "events", "jobs"),
            [(one.stage, one.error_type, one.events, one.jobs) for one in effects.behind],
        ),
    ]


def _print_consequences(console: Console, effects: "Effects") -> None:
    console.print(
        f"Jobs that start over as their next run: {effects.reruns}"
        + (f" ({effects.ends_first} have a run that is ended as failed first)" if effects.ends_first else "")
    )
    console.print(f"Events that go back to their stage as they were: {effects.resends}")
    total = "unknown" if effects.tokens.total is None else f"about {effects.tokens.total:,}"
    console.print(f"LLM tokens: {total} ({effects.tokens.how})")


def _item_table(items: "Sequence[PlanItem]") -> Table:
    """Return a row for each event; "behind it" are other failed events of its job."""
    from producers.replay.effects import BECAUSE

    table = Table()
    for name in ("failed event", "stage", "organization", "what", "job", "run", "behind it", "sent (UTC)", "became"):
        table.add_column(name, no_wrap=name == "failed event")
    for item in items:
        table.add_row(
            str(item.failed_event_id),
            item.stage,
            Text(item.organization_id or ""),
            BECAUSE.get(item.excluded_because or "", item.action),
            str(item.job_id or ""),
            f"{item.run} → {item.next_run}" if item.next_run else str(item.run or ""),
            str(item.others_behind),
            second(item.sent_at) if item.sent_at else "",
            item.became or "",
        )
    return table


def _table(title: str, columns: tuple[str, ...], rows: Sequence[Sequence[object]]) -> tuple[str, Table]:
    more = len(rows) - _LONGEST_TABLE
    table = Table(show_edge=False, pad_edge=False, caption=f"and {more} more; --json has them" if more > 0 else None)
    for name in columns:
        table.add_column(name)
    for row in rows[:_LONGEST_TABLE]:
        table.add_row(*(Text(f"{value:,}" if isinstance(value, int) else str(value)) for value in row))
    return title, table
