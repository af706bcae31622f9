"""What `teamfit failed` prints."""

import base64
from collections.abc import Iterator
from uuid import UUID

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.cli.output import mended, out
from infra.cli.session import operator, with_database
from infra.postgres import Database
from producers.replay.failed import Content, FailedEventDetails, FailedEvents, Filter, OpenOnes, State

_BYTES_PER_LINE = 16
_ID_WIDTH = 36


def print_list(chosen: Filter, *, state: State | None, limit: int, as_json: bool) -> None:
    """Print those that a filter finds."""
    page = with_database(lambda database: FailedEvents(database, database.clock).page(chosen, state=state, limit=limit))
    if as_json:
        typer.echo(page.model_dump_json(indent=2))
        return
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
            f"{one.last_failed_at:%Y-%m-%d %H:%M:%S}",
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
    console.print(f"{page.total} failed events, {len(page.failed_events)} shown.")


def print_one(failed_event_id: UUID, *, as_json: bool) -> None:
    """Print everything about one. Raises UnknownFailedEvent."""
    one = with_database(lambda database: FailedEvents(database, database.clock).one(failed_event_id))
    if as_json:
        typer.echo(one.model_dump_json(indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    apart = {"headers", "traceback", "key", "event"}
    for name, value in one.model_dump(exclude=apart).items():
        if value is not None:
            console.print(Text.assemble((f"{name:18}", "bold"), mended(str(value))))
    _section(console, "headers", "\n".join(f"{name}: {_header(value)}" for name, value in one.headers.items()))
    _section(console, f"key, {one.key.size} bytes", readable(one.key))
    _section(console, f"event, {one.event.size} bytes", readable(one.event))
    _section(console, "traceback", one.traceback or "")


def discard(failed_event_id: UUID | None, chosen: Filter, *, because: str, yes: bool) -> None:
    """Say what would be discarded, ask, and discard just that.

    Raises:
        UnknownFailedEvent: there is none with this ID.
        typer.Abort: the answer was no.
    """

    async def find(database: Database) -> OpenOnes:
        failed = FailedEvents(database, database.clock)
        if failed_event_id is None:
            return await failed.find_open(chosen)
        one = await failed.one(failed_event_id)
        return _only(one)

    found = with_database(find)
    typer.echo(f"{len(found.ids)} open failed events would be discarded.")
    if not found.ids:
        return
    if not yes:
        typer.confirm("Discard them?", abort=True)
    discarded = with_database(
        lambda database: FailedEvents(database, database.clock).discard(found, because=because, by=operator())
    )
    typer.echo(f"{discarded} discarded.")


def readable(content: Content) -> str:
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


def _only(one: FailedEventDetails) -> OpenOnes:
    return OpenOnes([one.id], [one.occurrences]) if one.state == "open" else OpenOnes([], [])


def _shortened(text: str) -> str:
    first = mended(text.partition("\n")[0])
    return first if len(first) <= 60 else f"{first[:59]}…"  # noqa: PLR2004 - what a table has room for


def _header(value: object) -> str:
    return mended(value) if isinstance(value, str) else orjson.dumps(value).decode()


def _section(console: Console, title: str, text: str) -> None:
    console.print(f"\n{title}", style="bold")
    console.print(Text(mended(text.replace("\t", "    ")) or "(none)"))
