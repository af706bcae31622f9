"""What `teamfit llm gate` prints and does."""

from collections.abc import Sequence

import typer
from rich.table import Table
from rich.text import Text

from consumers.generation.fleet_gate import FleetGate, gates, open_gates
from infra.cli.output import out, print_json
from infra.cli.session import with_database
from infra.errors import TeamfitError
from infra.postgres import Database


class NoSuchGate(TeamfitError):
    """No endpoint of this name has ever closed its gate."""


def show(*, as_json: bool) -> None:
    """Print every gate. Raises DependencyDown."""
    found = with_database(_read)
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo("The gate is open: no endpoint has ever said when to come back.")
        return
    table = Table()
    for name in ("endpoint", "gate", "until (UTC)", "reason"):
        table.add_column(name)
    for one in found:
        closed = f"closed for {one.closed_for.total_seconds():.1f} s" if one.closed_for else "open"
        table.add_row(Text(one.endpoint), closed, f"{one.closed_until:%Y-%m-%d %H:%M:%S}", Text(one.reason))
    out().print(table)


def open_early(endpoint: str | None, *, yes: bool) -> None:
    """Open one gate, or all that are closed.

    Raises:
        NoSuchGate: the endpoint is not among them.
        typer.Abort: the answer was no.
        DependencyDown: Postgres is away.
    """
    found = with_database(_read)
    if endpoint is not None and endpoint not in {one.endpoint for one in found}:
        names = ", ".join(one.endpoint for one in found) or "none"
        raise NoSuchGate(f"no gate stands before {endpoint}; there are: {names} (teamfit llm gate show)")
    closed = [one for one in found if one.closed_for and endpoint in {None, one.endpoint}]
    if not closed:
        typer.echo("The gate is open: nothing was changed.")
        return
    for one in closed:
        typer.echo(f"{one.endpoint} is closed until {one.closed_until:%Y-%m-%d %H:%M:%S} UTC ({one.reason}).")
    if not yes:
        typer.confirm("Open it? The endpoint may answer 429 again, and then it closes again.", abort=True)

    async def act(database: Database) -> Sequence[str]:
        async with database.transaction() as connection:
            return await open_gates(connection, [one.endpoint for one in closed])

    for name in with_database(act):
        typer.echo(f"{name} is open.")
    typer.echo("Generation workers that wait ask again within half a minute.")


async def _read(database: Database) -> list[FleetGate]:
    async with database.transaction() as connection:
        return await gates(connection)
