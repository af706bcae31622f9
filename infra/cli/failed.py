"""`teamfit failed`: the failed events, found, shown and discarded."""

# ruff: noqa: PLC0415 - each command imports what it needs when it runs

from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import typer

from infra.cli.errors import plain_errors
from infra.cli.failed_filter import filtered

if TYPE_CHECKING:
    from producers.replay.failed import Filter

app = typer.Typer(help="Find, show and discard failed events.", no_args_is_help=True)


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


@app.command("list")
@plain_errors()
@filtered
def list_failed(
    *,
    chosen: "Filter",
    state: Annotated[
        Literal["open", "replayed", "discarded", "all"], typer.Option(help="What became of them.")
    ] = "open",
    limit: Annotated[int, typer.Option(help="Most to print; the total is always said.", min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """List failed events, the latest first."""
    from infra.cli.failed_events import print_list

    print_list(chosen, state=None if state == "all" else state, limit=limit, as_json=as_json)


@app.command("show")
@plain_errors()
def show_failed(
    failed_event: Annotated[UUID, typer.Argument(help="The failed event's ID.")], *, as_json: AsJson = False
) -> None:
    """Print everything about one failed event: where and why it failed, its headers and its bytes."""
    from infra.cli.failed_events import print_one

    print_one(failed_event, as_json=as_json)


@app.command("discard")
@plain_errors()
@filtered
def discard_failed(
    failed_event: Annotated[UUID | None, typer.Argument(help="The failed event's ID; without it, a filter.")] = None,
    *,
    because: Annotated[str, typer.Option(help="Why, for those who ask later.")],
    chosen: "Filter",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Set failed events aside for good. They stay on record, and are open again if they fail again.

    Says how many there are and asks, unless --yes is given. Those that fail meanwhile are not touched.
    """
    from infra.cli.failed_events import discard
    from producers.replay.failed import Filter

    if (failed_event is None) == (chosen == Filter()):
        raise typer.BadParameter("give either the ID of one failed event, or at least one option that filters")
    discard(failed_event, chosen, because=because, yes=yes)
