"""What `teamfit organization` and `teamfit team` do: a seed for who has no TEAMFIT backend beside the pipeline.

The backend owns these tables. Adding changes nothing that is there: the same call again is the same organization, and
one with other values is an error that says what differs.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import aiosql
import asyncpg
import typer
from rich.table import Table
from rich.text import Text

from infra.cli.output import mended, out, print_json
from infra.cli.session import with_database
from infra.errors import TeamfitError
from infra.postgres import Connection, Database

T = TypeVar("T")

_queries = aiosql.from_path(Path(__file__).with_name("tenants.sql"), "asyncpg")


@dataclass(frozen=True, slots=True)
class Organization:
    """An organization with its subscription; that is None, field by field, when it has none."""

    id: str
    name: str
    trust_score: float
    plan: str | None
    status: str | None
    monthly_quota: int | None
    priority: bool | None
    teams: int = 0


@dataclass(frozen=True, slots=True)
class Team:
    """A team of an organization, as the prompt describes it."""

    id: str
    organization_id: str
    name: str
    size: int | None
    description: str | None


class UnknownOrganization(TeamfitError):
    """No organization has this ID."""


class Different(TeamfitError):
    """One with this ID is there, with other values."""


class NotOurs(TeamfitError):
    """The tables ask for more than this command knows: the TEAMFIT backend made them."""


def add_organization(wanted: Organization, *, as_json: bool) -> None:
    """Add an organization with its subscription and print it; one that is there with these values is no error."""

    async def add(connection: Connection) -> Organization:
        values = asdict(wanted)
        await _queries.insert_organization(connection, **_of(values, "id", "name", "trust_score"))
        await _queries.insert_subscription(connection, **_of(values, *_SUBSCRIPTION))
        found = await _organization(connection, wanted.id)
        _require_same(f"organization {wanted.id}", wanted, found, hint="change it with `teamfit organization set`")
        return found

    _print_organizations([_write(add)], as_json=as_json, one=True)


def set_organization(organization_id: str, changes: Mapping[str, Any], *, as_json: bool) -> None:
    """Change what is given of an organization and print it."""

    async def change(connection: Connection) -> Organization:
        known = await _organization(connection, organization_id)
        values = {"id": organization_id, **changes}
        await _queries.update_organization(connection, **_of(values, "id", "name", "trust_score"))
        if known.plan is None and any(values.get(name) is not None for name in _SUBSCRIPTION[1:]):
            missing = [option for name, option in _REQUIRED.items() if values.get(name) is None]
            if missing:
                raise Different(f"organization {organization_id} has no subscription yet: give {' and '.join(missing)}")
            first = {"status": "active", "priority": False} | {k: v for k, v in values.items() if v is not None}
            await _queries.insert_subscription(connection, **_of(first, *_SUBSCRIPTION))
        else:
            await _queries.update_subscription(connection, **_of(values, *_SUBSCRIPTION))
        return await _organization(connection, organization_id)

    _print_organizations([_write(change)], as_json=as_json, one=True)


def show_organization(organization_id: str, *, as_json: bool) -> None:
    """Print an organization."""
    found = _write(lambda connection: _organization(connection, organization_id))
    _print_organizations([found], as_json=as_json, one=True)


def list_organizations(*, as_json: bool) -> None:
    """Print every organization."""

    async def read(connection: Connection) -> list[Organization]:
        return [Organization(**row) async for row in _queries.organizations(connection, id=None)]

    _print_organizations(_write(read), as_json=as_json, one=False)


def add_team(wanted: Team, *, as_json: bool) -> None:
    """Add a team to an organization and print it; one that is there with these values is no error."""

    async def add(connection: Connection) -> Team:
        await _organization(connection, wanted.organization_id)
        await _queries.insert_team(connection, **asdict(wanted))
        (found,) = [Team(**row) async for row in _queries.teams(connection, id=wanted.id, organization_id=None)]
        _require_same(f"team {wanted.id}", wanted, found, hint="choose another ID")
        return found

    _print([_write(add)], as_json=as_json, one=True)


def list_teams(organization_id: str | None, *, as_json: bool) -> None:
    """Print the teams of an organization, or all."""

    async def read(connection: Connection) -> list[Team]:
        if organization_id is not None:
            await _organization(connection, organization_id)
        rows = _queries.teams(connection, id=None, organization_id=organization_id)
        return [Team(**row) async for row in rows]

    _print(_write(read), as_json=as_json, one=False)


_SUBSCRIPTION = ("id", "plan", "status", "monthly_quota", "priority")
_REQUIRED = {"plan": "--plan", "monthly_quota": "--quota"}


def _of(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: values.get(name) for name in names}


def _write(work: Callable[[Connection], Awaitable[T]]) -> T:
    """Run work in one transaction.

    Raises:
        NotOurs: a constraint of somebody else's refuses it.
    """

    async def run(database: Database) -> T:
        try:
            async with database.transaction() as connection:
                return await work(connection)
        except asyncpg.IntegrityConstraintViolationError as error:
            raise NotOurs(f"{error}: the TEAMFIT backend made this table and fills more of it; add it there") from error

    return with_database(run)


async def _organization(connection: Connection, organization_id: str) -> Organization:
    rows = [row async for row in _queries.organizations(connection, id=organization_id)]
    if not rows:
        raise UnknownOrganization(
            f"organization {organization_id}: not found; `teamfit organization list` has all, `add` makes one"
        )
    return Organization(**rows[0])


def _require_same(what: str, wanted: object, found: object, *, hint: str) -> None:
    names = [field.name for field in fields(wanted) if field.name != "teams"]  # type: ignore[arg-type]
    different = [
        f"{name} {getattr(found, name)!r}, not {getattr(wanted, name)!r}"
        for name in names
        if getattr(found, name) != getattr(wanted, name)
    ]
    if different:
        raise Different(f"{what} is there with {', '.join(different)}: {hint}")


def _print_organizations(found: Sequence[Organization], *, as_json: bool, one: bool) -> None:
    _print(found, as_json=as_json, one=one)
    for organization in found if one and not as_json else ():
        if organization.plan in (None, "free") or organization.status != "active":
            typer.echo("Its requests are refused with subscription_required: they need a paid plan that is active.")


def _print(found: Sequence[Organization] | Sequence[Team], *, as_json: bool, one: bool) -> None:
    if as_json:
        print_json(found[0] if one else list(found))
        return
    if not found:
        typer.echo("None yet.")
        return
    table = Table()
    for field in fields(found[0]):
        table.add_column(field.name.replace("_", " "))
    for row in found:
        table.add_row(*(Text(_shown(value)) for value in asdict(row).values()))
    out().print(table)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else mended(str(value))
