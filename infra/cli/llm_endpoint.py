"""What `teamfit llm dialect` and `teamfit llm hold` print and do."""

from collections.abc import Sequence

import typer
from rich.table import Table
from rich.text import Text

from consumers.generation.fleet import HeldEndpoint, LearnedDialect, dialects, forget_dialects, holds
from infra.cli.output import mended, out, print_json
from infra.cli.session import with_database
from infra.postgres import Database


def show_dialects(*, as_json: bool) -> None:
    """Print how each endpoint and model are asked. Raises DependencyDown."""

    async def read(database: Database) -> list[LearnedDialect]:
        async with database.transaction() as connection:
            return await dialects(connection)

    found = with_database(read)
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo("Nothing is learned yet: the next call tries the strongest form first.")
        return
    table = Table()
    for name in ("endpoint", "model", "setting", "form", "answers bounded by", "system message", "since (UTC)", "why"):
        table.add_column(name)
    for one in found:
        system = "yes" if one.takes_system else "no"
        since = f"{one.learned_at:%Y-%m-%d %H:%M:%S}"
        cells = (one.endpoint, one.model, one.completion_format, one.form, one.answer_limit, system, since, one.why)
        table.add_row(*(Text(mended(cell)) for cell in cells))
    out().print(table)


def forget(endpoint: str | None, *, yes: bool) -> None:
    """Forget what was learned of one endpoint, or of all.

    Raises:
        typer.Abort: the answer was no.
        DependencyDown: Postgres is away.
    """
    if not yes:
        typer.confirm(f"Forget how {endpoint or 'every endpoint'} is asked? The next call learns it again.", abort=True)

    async def act(database: Database) -> Sequence[tuple[str, str]]:
        async with database.transaction() as connection:
            return await forget_dialects(connection, endpoint)

    forgotten = with_database(act)
    for name, model in forgotten:
        typer.echo(f"{mended(name)} {mended(model)} is forgotten.")
    typer.echo("Workers notice within half a minute." if forgotten else "Nothing was learned of it.")


def show_holds(*, as_json: bool) -> None:
    """Print which endpoints are held and why. Raises DependencyDown."""

    async def read(database: Database) -> list[HeldEndpoint]:
        async with database.transaction() as connection:
            return await holds(connection)

    found = with_database(read)
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo("No endpoint is held.")
        return
    table = Table()
    for name in ("endpoint", "model", "to blame", "since (UTC)", "next probe", "why"):
        table.add_column(name)
    for one in found:
        since, probe = f"{one.held_at:%Y-%m-%d %H:%M:%S}", f"in {one.next_probe_in.total_seconds():.1f} s"
        cells = (one.endpoint, one.model, one.blame, since, probe, one.sentence)
        table.add_row(*(Text(mended(cell)) for cell in cells))
    out().print(table)
