"""`teamfit projection rebuild` prints its progress, then the differences and the repairs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson
from infra.cli.output import out, print_json

if TYPE_CHECKING:
    from consumers.projection.rebuild import Comparison, Rebuilt, Step

app = typer.Typer()
projection = typer.Typer(help="The read model that customers poll.", no_args_is_help=True)
app.add_typer(projection, name="projection")

_STEPS: "Final[dict[Step, str]]" = {
    "fold": "Folding the archive",
    "examine": "Comparing with the read model",
    "repair": "Repairing rows",
}


@projection.command()
@plain_errors()
def rebuild(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what differs; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fold the archive again and repair the rows that differ, while the service runs.

    Ends with code 1 if the read model is not what the archive says in the end, or shows what the archive misses.
    """
    rebuilt = _rebuilt(dry_run=dry_run)
    if as_json:
        print_json({"agrees": rebuilt.agrees, "dry_run": dry_run, **asdict(rebuilt)})
    else:
        _print(rebuilt, dry_run=dry_run)
    if not rebuilt.agrees:
        raise typer.Exit(1)


def _rebuilt(*, dry_run: bool) -> "Rebuilt":
    """Rebuild the read model of the database at DATABASE_URL, and show how far it is."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from consumers.projection import rebuild as projection_rebuild
    from infra.cli.session import with_session

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks = {step: bar.add_task(text, total=None, visible=False) for step, text in _STEPS.items()}

        def show(step: "Step", done: int, total: int) -> None:
            bar.update(tasks[step], completed=done, total=total, visible=True)

        return with_session(lambda connection: projection_rebuild.rebuild(connection, dry_run=dry_run, progress=show))


def _print(rebuilt: "Rebuilt", *, dry_run: bool) -> None:
    console = out(pipe_width=120)
    console.print(_table(rebuilt))
    before, last = rebuilt.before, rebuilt.after or rebuilt.before
    _list(console, "What differed" if rebuilt.after else "What differs", before.examples)
    _list(console, "Left alone, an event cannot be read", last.unreadable)
    _list(console, "The archive misses what the read model shows", last.gaps.examples)
    if last.gaps.found:
        console.print(
            "  Look for these events among the failed events and in the streams. A rebuild cannot invent them."
        )
    if rebuilt.after:
        console.print(f"{rebuilt.repaired} rows were repaired.", style="bold")
    elif dry_run and not before.agrees:
        console.print("Nothing was changed.", style="bold")
    if rebuilt.agrees:
        console.print(f"The read model is the fold of the archive ({rebuilt.events} events).", style="bold green")


def _table(rebuilt: "Rebuilt") -> Table:
    table = Table(title="The read model, compared with the archive")
    table.add_column("")
    sides: list[Comparison] = [rebuilt.before, *([rebuilt.after] if rebuilt.after else [])]
    for name in ("before", "after")[: len(sides)]:
        table.add_column(name, justify="right")
    for label, field in (
        ("jobs in the archive", "jobs"),
        ("their rows", "rows"),
        ("fingerprint of the archive", "archive_fingerprint"),
        ("fingerprint of the rows", "row_fingerprint"),
        ("jobs without a row", "missing"),
        ("rows that differ", "different"),
        ("rows kept, older or fuller than the archive", "kept"),
        ("rows without events", "without_events"),
        ("jobs that cannot be read", "unreadable_jobs"),
    ):
        table.add_row(label, *(str(getattr(side, field)) for side in sides))
    table.add_row("gaps in the archive", *(str(side.gaps.found) for side in sides))
    return table


def _list(console: Console, title: str, lines: Sequence[str]) -> None:
    if lines:
        console.print(f"{title}:", style="bold")
    for line in lines:
        console.print(f"  {line}", markup=False, soft_wrap=True)
