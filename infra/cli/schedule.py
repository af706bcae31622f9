"""`teamfit schedule`: what is published later, and the periodic tasks."""

from typing import Annotated

import typer

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson
from infra.cli.output import print_json, print_table, shown

app = typer.Typer()
schedule_app = typer.Typer(help="See what is published later, and why; run a periodic task now.", no_args_is_help=True)
app.add_typer(schedule_app, name="schedule")


@schedule_app.command("list")
@plain_errors()
def list_due(
    *,
    topic: Annotated[str | None, typer.Option(help="The topic that they are published to, e.g. job-accepted.")] = None,
    limit: Annotated[int, typer.Option(help="Most to print; how many there are is always said.", min=1)] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where a page ended, which has printed this.")] = None,
    as_json: AsJson = False,
) -> None:
    """List retries and jobs that wait for their time, the soonest first. Counts are exact up to 10,000."""
    from infra.cli.session import with_database
    from infra.operations.schedule import read_due

    page = with_database(lambda database: read_due(database, topic=topic, limit=limit, cursor=cursor))
    if as_json:
        print_json(page)
        return
    if page.events:
        rows = (
            (one.due_at, one.topic, one.job_id or one.key, " ".join(one.reason.split())[:100]) for one in page.events
        )
        print_table(("due (UTC)", "topic", "job, or another key", "why"), rows)
    typer.echo(f"{page.total} scheduled, {page.overdue} of them overdue, {len(page.events)} shown.")
    if page.next is not None:
        typer.echo(f"The next page: --cursor {page.next}")


@schedule_app.command("tasks")
@plain_errors()
def list_tasks(*, as_json: AsJson = False) -> None:
    """List the periodic tasks, with their last and next times and how they ended."""
    from infra.cli.session import with_database
    from infra.operations.schedule import periodic_tasks

    found = with_database(periodic_tasks)
    if as_json:
        print_json(found)
        return
    rows = (
        (
            *(one.name, one.what, one.when, one.started_at, one.ended_at, one.next_at),
            *(f"{one.state} by {one.wanted_by}" if one.wanted_by else one.state, one.error),
        )
        for one in found
    )
    print_table(("task", "what", "when", "began (UTC)", "ended (UTC)", "next (UTC)", "state", "failed by"), rows)


@schedule_app.command("run")
@plain_errors()
def run(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Its name: see `teamfit schedule tasks`.")],
    *,
    reason: Annotated[str | None, typer.Option(help="Why; others read it.")] = None,
) -> None:
    """Run a periodic task now. The schedule worker that leads does it; one that is running is left alone."""
    from infra.cli.session import with_database
    from infra.operations.schedule import run_task

    effects = with_database(lambda database: run_task(database, task, reason=reason))
    for name, value in effects.items():
        typer.echo(f"{name.replace('_', ' ')} {shown(value)}")
