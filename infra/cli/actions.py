"""`teamfit actions`: what operators did, and what was refused."""

from datetime import datetime
from typing import Annotated, Literal

import typer

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson, moment
from infra.cli.output import print_json, print_table

app = typer.Typer()
actions_app = typer.Typer(help="See what operators did, and what was refused.", no_args_is_help=True)
app.add_typer(actions_app, name="actions")

_COLUMNS = ("at (UTC)", "who", "by", "action", "target", "reason", "outcome", "effects")
_LONGEST = 80


@actions_app.command("list")
@plain_errors()
def list_actions(
    *,
    actor: Annotated[str | None, typer.Option(help="Who acted.")] = None,
    action: Annotated[str | None, typer.Option(help="As job.cancel; `job.` finds all that begin so.")] = None,
    target: Annotated[str | None, typer.Option(help='To what, as "organization acme".')] = None,
    face: Annotated[Literal["cli", "api", "console", "program"] | None, typer.Option(help="From where.")] = None,
    outcome: Annotated[Literal["done", "refused"] | None, typer.Option(help="What came of it.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(parser=moment, metavar="TIME", help="At or after this: 2031-04-01T12:00 (UTC), or 2h ago."),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(parser=moment, metavar="TIME", help="Before this; as --since is given.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Most to print.", min=1, max=10_000)] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where a page ended, which has printed this.")] = None,
    as_json: AsJson = False,
) -> None:
    """List actions of operators, the newest first."""
    from pydantic import ValidationError

    from infra.advice import explained
    from infra.cli.session import with_database
    from infra.operations.actions import ActionFilter, find_actions

    try:
        chosen = ActionFilter(
            actor=actor, action=action, target=target, face=face, outcome=outcome, since=since, until=until
        )
    except ValidationError as error:
        raise typer.BadParameter(explained(error)) from error
    page = with_database(lambda database: find_actions(database, chosen, limit=limit, cursor=cursor))
    if as_json:
        print_json(page)
        return
    if not page.actions:
        typer.echo("No action fits.")
        return
    rows = (
        (one.at, one.actor, one.face, one.action, one.target, one.reason, one.why or one.outcome, _brief(one.effects))
        for one in page.actions
    )
    print_table(_COLUMNS, rows)
    if page.next is not None:
        typer.echo(f"The next page: --cursor {page.next}")


def _brief(effects: object) -> str:
    import orjson

    text = "" if not effects else orjson.dumps(effects).decode()
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
