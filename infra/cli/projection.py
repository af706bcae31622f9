"""`teamfit projection rebuild`: progress while it runs, then what differed and what was done about it."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict

import asyncpg
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from consumers.projection.rebuild import Comparison, Rebuilt, Step, rebuild
from infra.cli.output import out, print_json
from infra.cli.session import session
from infra.errors import DependencyDown
from infra.postgres import behind_pooler
from infra.settings import settings

_STEPS: dict[Step, str] = {
    "fold": "Folding the archive",
    "examine": "Comparing with the read model",
    "repair": "Repairing rows",
}


def run(*, dry_run: bool, as_json: bool) -> None:
    """Rebuild the read model of the database at DATABASE_URL, and print what differed.

    Raises:
        typer.Exit: with code 1, if the read model is not what the archive says in the end, or not all that it shows is
            in the archive.
        DependencyDown: Postgres is away, or somebody holds a row; nothing was changed.
    """
    bar = ProgressBar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    tasks = {step: bar.add_task(text, total=None, visible=False) for step, text in _STEPS.items()}

    def show(step: Step, done: int, total: int) -> None:
        bar.update(tasks[step], completed=done, total=total, visible=True)

    async def work(connection: "asyncpg.Connection[asyncpg.Record]") -> Rebuilt:
        if await behind_pooler(connection):
            raise DependencyDown(
                "postgres",
                "a rebuild keeps temporary tables from one transaction to the next, which a pooler may put on another "
                "server: run it with DATABASE_URL of Postgres itself",
            )
        return await rebuild(connection, dry_run=dry_run, progress=show)

    with bar:
        rebuilt = asyncio.run(session(settings().database_url, work))
    if as_json:
        print_json({"agrees": rebuilt.agrees, "dry_run": dry_run, **asdict(rebuilt)})
    else:
        _print(rebuilt, dry_run=dry_run)
    if not rebuilt.agrees:
        raise typer.Exit(1)


def _print(rebuilt: Rebuilt, *, dry_run: bool) -> None:
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


def _table(rebuilt: Rebuilt) -> Table:
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
