"""`teamfit failed`: the failed events, found, shown and discarded."""

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson, Yes, filtered
from infra.cli.output import confirm, mended, out, print_table, second, tell

if TYPE_CHECKING:
    from producers.replay.failed import Content, FailedEventDetails, FailedEventPage, Filter

app = typer.Typer()
failed = typer.Typer(help="Find, show and discard failed events.", no_args_is_help=True)
app.add_typer(failed, name="failed")

_InState = Annotated[Literal["open", "replayed", "discarded", "all"], typer.Option(help="What became of them.")]

_BYTES_PER_LINE = 16
_ID_WIDTH = 36


@failed.command("list")
@plain_errors()
@filtered
def list_failed(
    *,
    chosen: "Filter",
    state: _InState = "open",
    limit: Annotated[int, typer.Option(help="Most to print; the total is always said.", min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """List failed events, the latest first."""
    from infra.cli.session import with_database
    from producers.replay.failed import FailedEvents

    wanted = None if state == "all" else state
    page = with_database(
        lambda database: FailedEvents(database, database.clock).page(chosen, state=wanted, limit=limit)
    )
    tell(page.notice)
    if as_json:
        typer.echo(page.model_dump_json(indent=2))
    else:
        _print_page(page)


@failed.command("groups")
@plain_errors()
@filtered
def group_failed(
    *,
    chosen: "Filter",
    state: _InState = "open",
    as_json: AsJson = False,
) -> None:
    """Group the latest 10,000 failed events by stage, error and message, the largest group first."""
    from infra.cli.session import with_database
    from producers.replay.failed_groups import read_groups

    wanted = None if state == "all" else state
    found = with_database(lambda database: read_groups(database, chosen, state=wanted))
    tell(found.notice)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    rows = (
        (one.count, one.stage, one.error_type, _shortened(one.shape), one.first_failed_at, one.last_failed_at,
         one.organizations)
        for one in found.groups
    )  # fmt: skip
    print_table(("events", "stage", "error", "message", "first (UTC)", "last (UTC)", "organizations"), rows)
    more = "; the filter finds more" if found.more else ""
    typer.echo(f"{found.looked_at:,} failed events in {found.total:,} groups, {len(found.groups)} shown{more}.")


@failed.command("show")
@plain_errors()
def show_failed(
    failed_event: Annotated[UUID, typer.Argument(help="The failed event's ID.")], *, as_json: AsJson = False
) -> None:
    """Print one failed event: where and why it failed, its headers and bytes."""
    from infra.cli.session import with_database
    from producers.replay.failed import FailedEvents

    one = with_database(lambda database: FailedEvents(database, database.clock).one(failed_event))
    if as_json:
        typer.echo(one.model_dump_json(indent=2))
    else:
        _print_one(one)


@failed.command("discard")
@plain_errors()
@filtered
def discard_failed(
    failed_event: Annotated[UUID | None, typer.Argument(help="The failed event's ID; without it, a filter.")] = None,
    *,
    because: Annotated[str, typer.Option(help="Why, for those who ask later.")],
    chosen: "Filter",
    yes: Yes = False,
) -> None:
    """Set failed events aside for good. They stay on record, and are open again if they fail again.

    Says how many there are and asks, unless --yes is given. Those that fail meanwhile are not touched.
    """
    from infra.cli.session import operator, with_database
    from producers.replay.failed import FailedEvents, Filter

    if (failed_event is None) == (chosen == Filter()):
        raise typer.BadParameter("give either the ID of one failed event, or at least one option that filters")
    found = with_database(
        lambda database: (
            FailedEvents(database, database.clock).find_open(chosen)
            if failed_event is None
            else FailedEvents(database, database.clock).find_one(failed_event)
        )
    )
    typer.echo(f"{len(found.ids)} open failed events would be discarded.")
    if not found.ids:
        return
    if not yes:
        confirm("Discard them?")
    discarded = with_database(
        lambda database: FailedEvents(database, database.clock).discard(found, because=because, by=operator())
    )
    typer.echo(f"{discarded} discarded.")


def _print_page(page: "FailedEventPage") -> None:
    table = Table()
    table.add_column("id", no_wrap=True, min_width=_ID_WIDTH)
    table.add_column("last failed (UTC)", no_wrap=True)
    for name in ("stage", "error", "message", "organization"):
        table.add_column(name)
    # In full: it is what `job show` and `failed list --job` take.
    table.add_column("job", no_wrap=True, min_width=_ID_WIDTH)
    table.add_column("run", justify="right")
    table.add_column("state")
    for one in page.failed_events:
        table.add_row(
            str(one.id),
            second(one.last_failed_at),
            one.stage,
            Text(one.error_type),
            Text(_shortened(one.error_message)),
            Text(one.organization_id or ""),
            str(one.job_id or ""),
            str(one.run or ""),
            one.state,
        )
    console = out(pipe_width=200)
    if page.failed_events:
        console.print(table)
    console.print(f"{page.counted} failed events, {len(page.failed_events)} shown.")
    if page.has_one_of_several_stages:
        console.print("An entry that several stages read stands here once for each that could not process it.")


def _print_one(one: "FailedEventDetails") -> None:
    console = Console(highlight=False, soft_wrap=True)
    apart = {"headers", "traceback", "key", "event"}
    for name, value in one.model_dump(exclude=apart).items():
        if value is not None:
            console.print(Text.assemble((f"{name:18}", "bold"), mended(str(value))))
    _section(console, "headers", "\n".join(f"{name}: {_header(value)}" for name, value in one.headers.items()))
    _section(console, f"key, {one.key.size} bytes", _readable(one.key))
    _section(console, f"event, {one.event.size} bytes", _readable(one.event))
    _section(console, "traceback", one.traceback or "")


def _readable(content: "Content") -> str:
    """Return bytes as a person can read them: JSON laid out, other text as it is, anything else in hexadecimal."""
    if content.text is not None:
        try:
            return orjson.dumps(orjson.loads(content.text), option=orjson.OPT_INDENT_2).decode()
        except orjson.JSONDecodeError:
            if all(character.isprintable() or character in "\n\t" for character in content.text):
                return content.text
            return "\n".join(_hexadecimal(content.text.encode()))
    return "\n".join(_hexadecimal(base64.b64decode(content.base64 or "")))


def _hexadecimal(raw: bytes) -> Iterator[str]:
    for start in range(0, len(raw), _BYTES_PER_LINE):
        part = raw[start : start + _BYTES_PER_LINE]
        shown = "".join(chr(byte) if chr(byte).isascii() and chr(byte).isprintable() else "." for byte in part)
        yield f"{start:08x}  {part.hex(' '):{3 * _BYTES_PER_LINE}} {shown}"


def _shortened(text: str) -> str:
    first = mended(text.partition("\n")[0])
    return first if len(first) <= 60 else f"{first[:59]}…"  # noqa: PLR2004 - what a table has room for


def _header(value: object) -> str:
    return mended(value) if isinstance(value, str) else orjson.dumps(value).decode()


def _section(console: Console, title: str, text: str) -> None:
    console.print(f"\n{title}", style="bold")
    console.print(Text(mended(text.replace("\t", "    ")) or "(none)"))
