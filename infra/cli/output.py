"""Commands print tables, JSON, and texts of strangers that move no cursor. They ask before a change.

A pipe does not squeeze the tables.
"""

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import UUID

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")
_ID_WIDTH: Final = 36


def out(*, stderr: bool = False, pipe_width: int = 160) -> Console:
    """Return the console for tables. A pipe has no width of its own, and Rich's guess is too narrow for them."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=pipe_width)


def print_json(document: object) -> None:
    """Print a document for programs: dataclasses as objects, times in ISO 8601, durations in seconds."""
    typer.echo(orjson.dumps(document, default=_plain, option=orjson.OPT_INDENT_2))


def tell(notice: str | None) -> None:
    """Print what a reader should know beside an answer, on standard error; without one, nothing."""
    if notice is not None:
        typer.echo(mended(notice), err=True)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print rows below their columns' names. IDs stay whole, however narrow the table: they are copied from it."""
    cells = [tuple(row) for row in rows]
    table = Table()
    for place, name in enumerate(columns):
        has_ids = any(isinstance(row[place], UUID) for row in cells)
        table.add_column(name, no_wrap=has_ids, min_width=_ID_WIDTH if has_ids else None)
    for row in cells:
        table.add_row(*(Text(shown(cell)) for cell in row))
    out().print(table)


def print_models(
    found: Sequence[M],
    columns: Iterable[str],
    row: Callable[[M], Iterable[object]],
    *,
    none: str,
    as_json: bool,
) -> None:
    """Print what was found, as a table or as JSON.

    `none` says what to do where nothing was.
    """
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
    elif found:
        print_table(columns, map(row, found))
    else:
        typer.echo(none)


def shown(value: object) -> str:
    """Return a value as a table's cell shows it. A list's parts are separated by commas."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{shown(name)}: {shown(part)}" for name, part in value.items())
    if isinstance(value, Collection) and not isinstance(value, str | bytes):
        return ", ".join(map(shown, value))
    return second(value) if isinstance(value, datetime) else mended(str(value))


def second(moment: datetime) -> str:
    """Return a time to the second; that it is UTC stands beside it."""
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def mended(text: str) -> str:
    """Return text that cannot move a terminal's cursor. An event's fields are whatever their sender wrote."""
    return "".join(character if character.isprintable() or character == "\n" else "�" for character in text)


def _plain(value: object) -> float | str:
    return value.total_seconds() if isinstance(value, timedelta) else str(value)


def confirm(question: str, *, err: bool = False) -> None:
    """Ask whether to go on, and end the command unless the answer is yes.

    Args:
        question: what is asked.
        err: ask on standard error, since standard output is for a program.

    Raises:
        Abort: the answer is no, or there is none.
    """
    try:
        typer.confirm(question, abort=True, err=err)
    except typer.Abort:
        hint = "" if sys.stdin.isatty() else " To do it without being asked, add --yes."
        typer.echo(f"\nNothing was done.{hint}", err=True)
        raise
