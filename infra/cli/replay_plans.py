"""What `teamfit replay` prints, and applying a plan with its progress shown."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from infra.cli.output import out
from infra.cli.session import operator, with_database
from infra.postgres import Database
from infra.settings import settings
from producers.broker import Broker
from producers.replay.apply import Progress, Replays
from producers.replay.effects import Effects
from producers.replay.failed import Filter
from producers.replay.plans import Plan, PlanItem, PlanPage, Plans

_LONGEST_TABLE = 20

# A large batch over a slow line; nobody waits for an answer meanwhile.
_PUBLISH_TIMEOUT = timedelta(seconds=30)

# Why an event of a plan is not sent, for people.
_BECAUSE = {
    "succeeded": "the job has since succeeded",
    "cancelled": "the job is cancelled",
    "running": "a later run of the job is under way",
    "same_job": "another event of the plan starts the same job again",
    "other_organization": "the job belongs to another organization than the event says",
    "no_destination": "its topic and consumer group are none of the pipeline's",
    "no_run_left": "the job's run cannot be counted any further",
}


def make(chosen: Filter, *, as_json: bool) -> None:
    """Make a plan and print it."""
    plan = with_database(lambda database: Plans(database, database.clock).make(chosen, by=operator()))
    _print(plan, as_json=as_json)
    if not as_json and plan.total:
        typer.echo(f"Nothing was sent. To send it: teamfit replay apply {plan.id} --rate 100/s")


def show(plan_id: UUID, *, events: int, as_json: bool) -> None:
    """Print a plan, and as many of its events. Raises UnknownPlan."""

    async def read(database: Database) -> tuple[Plan, Sequence[PlanItem]]:
        plans = Plans(database, database.clock)
        return await plans.get(plan_id), await plans.items(plan_id, limit=events) if events else ()

    plan, items = with_database(read)
    if as_json:
        typer.echo(PlanPage(**dict(plan), items=list(items)).model_dump_json(indent=2))
        return
    _print(plan, as_json=False)
    if items:
        out().print(_item_table(items))


def abort(plan_id: UUID) -> None:
    """Abort a plan and say what had been sent. Raises UnknownPlan."""
    plan = with_database(lambda database: Plans(database, database.clock).abort(plan_id))
    typer.echo(f"Plan {plan.id} is {plan.state}; {plan.sent} of its {plan.total} events were sent.")


def apply(plan_id: UUID, *, rate: float, yes: bool) -> None:
    """Apply a plan, showing its progress.

    Raises:
        ReplayError: it is refused, or stopped.
        DependencyDown: Postgres or the broker is away.
        typer.Abort: the answer was no.
    """
    plan = with_database(lambda database: Plans(database, database.clock).get(plan_id))
    if plan.state == "finished":
        typer.echo(f"Plan {plan.id} was finished at {plan.ended_at:%Y-%m-%d %H:%M:%S} UTC: nothing was sent.")
        return
    left = plan.total - plan.sent
    if not yes and plan.state != "aborted":
        typer.confirm(f"Send {left} events at {rate:g}/s?", abort=True)
    plan = with_database(lambda database: _applied(database, plan_id, rate))
    typer.echo(f"Plan {plan.id} is {plan.state}: {plan.sent} of {plan.total} events are sent.")


async def _applied(database: Database, plan_id: UUID, rate: float) -> Plan:
    broker = Broker(settings(), name="replay", timeout=_PUBLISH_TIMEOUT)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Bar(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("sending", total=None)

            def report(progress: Progress) -> None:
                waiting = f"waiting for quota of {progress.waiting} jobs" if progress.waiting else "sending"
                bar.update(task, total=progress.total, completed=progress.sent, description=waiting)

            return await Replays(database, broker, database.clock).apply(plan_id, rate=rate, report=report)
    except asyncio.CancelledError:
        typer.echo(f"Stopped. `teamfit replay apply {plan_id}` goes on from here.", err=True)
        raise
    finally:
        await broker.close()


def _print(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        typer.echo(plan.model_dump_json(indent=2))
        return
    console = out()
    console.print(f"Plan {plan.id}, made by {plan.created_by} at {plan.created_at:%Y-%m-%d %H:%M:%S} UTC", style="bold")
    console.print(f"State: {plan.state}, {plan.sent} of {plan.total} events sent\n")
    for title, table in _tables(plan.effects):
        if table.row_count:
            console.print(title, style="bold")
            console.print(table)
            console.print()
    _print_consequences(console, plan.effects)


def _tables(effects: Effects) -> list[tuple[str, Table]]:
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
                (_BECAUSE.get(one.because, one.because), one.events, ", ".join(map(str, one.job_ids[:3])))
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


def _print_consequences(console: Console, effects: Effects) -> None:
    console.print(
        f"Jobs that start over as their next run: {effects.reruns}"
        + (f" ({effects.ends_first} have a run that is ended as failed first)" if effects.ends_first else "")
    )
    console.print(f"Events that go back to their stage as they were: {effects.resends}")
    total = "unknown" if effects.tokens.total is None else f"about {effects.tokens.total:,}"
    console.print(f"LLM tokens: {total} ({effects.tokens.how})")


def _item_table(items: Sequence[PlanItem]) -> Table:
    """Return a row for each event; "behind it" are other failed events of its job."""
    table = Table()
    for name in ("failed event", "stage", "organization", "what", "job", "run", "behind it", "sent (UTC)"):
        table.add_column(name, no_wrap=name == "failed event")
    for item in items:
        table.add_row(
            str(item.failed_event_id),
            item.stage,
            Text(item.organization_id or ""),
            _BECAUSE.get(item.excluded_because or "", item.action),
            str(item.job_id or ""),
            f"{item.run} → {item.next_run}" if item.next_run else str(item.run or ""),
            str(item.others_behind),
            f"{item.sent_at:%Y-%m-%d %H:%M:%S}" if item.sent_at else "",
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
