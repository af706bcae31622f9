"""`teamfit schedule`: what is published later."""

from typing import Annotated

import typer

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson
from infra.cli.output import print_json, print_table

app = typer.Typer()
schedule_app = typer.Typer(help="See what is published later, and why.", no_args_is_help=True)
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
        rows = ((one.due_at, one.topic, one.key, " ".join(one.reason.split())[:100]) for one in page.events)
        print_table(("due (UTC)", "topic", "job", "why"), rows)
    typer.echo(f"{page.total} scheduled, {page.overdue} of them overdue, {len(page.events)} shown.")
    if page.next is not None:
        typer.echo(f"The next page: --cursor {page.next}")
