"""Customers of an installation that has no TEAMFIT backend beside it: added, changed and shown.

The backend owns these tables. Adding changes nothing that is there: the same call again is the same organization, and
one with other values is an error that says what differs.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import aiosql
import asyncpg

from infra.actions import Act, acting
from infra.errors import TeamfitError
from infra.operations.prices import currency, kind_of
from infra.postgres import Connection, Database

_queries = aiosql.from_path(Path(__file__).with_name("tenants.sql"), "asyncpg")

Status: TypeAlias = Literal["active", "trialing", "past_due", "paused", "cancelled"]
"""Of a subscription; only `active` may request."""
LONGEST_NAME: Final = 64
LONGEST_DESCRIPTION: Final = 10_000

_LIMITS = ("requests_per_minute", "max_waiting", "budget", "budget_kind")
_SUBSCRIPTION = ("id", "plan", "status", "monthly_quota", "priority", "weight", "max_in_flight", *_LIMITS)
# What is shown, and asked for nowhere.
_TOLD = {"share", "cap", "teams", "waiting", "in_flight"}
_REQUIRED = {"plan": "--plan", "monthly_quota": "--quota"}


@dataclass(frozen=True, slots=True)
class Organization:
    """An organization with its subscription; that is None, field by field, when it has none.

    Attributes:
        weight: what it was given itself of the fleet; None: as its plan has it. So with `max_in_flight`.
        share: the weight that counts.
        cap: how many of its runs may be worked on at once; None: any number.
        requests_per_minute: how many requests it may send; None: as its plan has it. So with `max_waiting`, the runs
            that may wait.
        budget: what its calls may cost in a month, in micro-units of the prices' currency; None: as its plan has it.
        budget_kind: whether that stops it (hard), or is told (soft).
        waiting, in_flight: its runs in line, and those that are worked on.
    """

    id: str
    name: str
    trust_score: float
    plan: str | None
    status: str | None
    monthly_quota: int | None
    priority: bool | None
    weight: float | None = None
    max_in_flight: int | None = None
    share: float = 1.0
    cap: int | None = None
    teams: int = 0
    requests_per_minute: int | None = None
    max_waiting: int | None = None
    budget: int | None = None
    budget_kind: str | None = None
    waiting: int = 0
    in_flight: int = 0

    @property
    def may_request(self) -> bool:
        """Return true if it has the paid plan that requests need, in force."""
        return self.plan not in {None, "free"} and self.status == "active"


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


async def add_organization(database: Database, wanted: Organization) -> Organization:
    """Add an organization with its subscription. One that is there with these values is no error.

    Raises:
        Different: it is there with other values.
        NotOurs: a constraint of somebody else's refuses it.
    """
    async with _writing(
        database, Act("organization.add", f"organization {wanted.id}", effects=asdict(wanted))
    ) as connection:
        values = asdict(wanted)
        await _queries.insert_organization(connection, **_of(values, "id", "name", "trust_score"))
        await _queries.insert_subscription(connection, **_of(values, *_SUBSCRIPTION))
        found = await organization_in(connection, wanted.id)
        _require_same(f"organization {wanted.id}", wanted, found, hint="change it with `teamfit organization set`")
        return found


async def set_organization(
    database: Database, organization_id: str, changes: Mapping[str, Any], *, as_plan: bool = False
) -> Organization:
    """Change what is given of an organization.

    Args:
        database: where.
        organization_id: which.
        changes: new values by field of `Organization`; None leaves a field as it is.
        as_plan: whether a weight, a cap and limits that are not given become those of its plan.

    Raises:
        UnknownOrganization: there is none.
        Different: it has no subscription yet, and what one needs is not given.
        NotOurs: a constraint of somebody else's refuses it.
        WrongPrice: a budget is given, and no model has a price.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    act = Act("organization.set", f"organization {organization_id}", effects=given)
    async with _writing(database, act) as connection:
        known = await organization_in(connection, organization_id)
        before = {name: getattr(known, name) for name in given}
        act.effects = {"before": before, "after": given, **({"as_plan": True} if as_plan else {})}
        if changes.get("budget") is not None:
            await currency(connection)
        values = {"id": organization_id, **changes}
        await _queries.update_organization(connection, **_of(values, "id", "name", "trust_score"))
        if known.plan is None and any(values.get(name) is not None for name in _SUBSCRIPTION[1:]):
            missing = [option for name, option in _REQUIRED.items() if values.get(name) is None]
            if missing:
                raise Different(f"organization {organization_id} has no subscription yet: give {' and '.join(missing)}")
            first = {"status": "active", "priority": False} | {k: v for k, v in values.items() if v is not None}
            await _queries.insert_subscription(connection, **_of(first, *_SUBSCRIPTION))
        else:
            await _queries.update_subscription(connection, **_of(values, *_SUBSCRIPTION), as_plan=as_plan)
        return await organization_in(connection, organization_id)


async def organization(database: Database, organization_id: str) -> Organization:
    """Return an organization. Raises UnknownOrganization."""
    async with database.transaction() as connection:
        return await organization_in(connection, organization_id)


async def find_organizations(
    database: Database, name: str | None, *, limit: int, after: str | None = None
) -> tuple[Sequence[Organization], str | None]:
    """Return those whose ID or name has a text, and where the next page begins."""
    async with database.transaction(for_values=True) as connection:
        rows = _queries.organizations(connection, id=None, name=name, after=after, limit=limit + 1)
        found = [_organization(row) async for row in rows]
    return found[:limit], found[limit - 1].id if len(found) > limit else None


async def add_team(database: Database, wanted: Team) -> Team:
    """Add a team to an organization. One that is there with these values is no error.

    Raises:
        UnknownOrganization: it would belong to none.
        Different: it is there with other values.
        NotOurs: a constraint of somebody else's refuses it.
    """
    act = Act("team.add", f"team {wanted.id}", effects={"organization": wanted.organization_id})
    async with _writing(database, act) as connection:
        await organization_in(connection, wanted.organization_id)
        await _queries.insert_team(connection, **asdict(wanted))
        (found,) = [Team(**row) async for row in _queries.teams(connection, id=wanted.id, organization_id=None)]
        _require_same(f"team {wanted.id}", wanted, found, hint="choose another ID")
        return found


async def teams(database: Database, organization_id: str | None) -> Sequence[Team]:
    """Return the teams of an organization, or all. Raises UnknownOrganization."""
    async with database.transaction() as connection:
        if organization_id is not None:
            await organization_in(connection, organization_id)
        rows = _queries.teams(connection, id=None, organization_id=organization_id)
        return [Team(**row) async for row in rows]


def _of(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: values.get(name) for name in names}


@asynccontextmanager
async def _writing(database: Database, act: Act) -> AsyncIterator[Connection]:
    """Give an action's transaction, in which a refusal of the backend's own constraints is told from a bug."""
    async with acting(database, act) as connection:
        try:
            yield connection
        except asyncpg.IntegrityConstraintViolationError as error:
            raise NotOurs(f"{error}: the TEAMFIT backend made this table and fills more of it; add it there") from error


async def organization_in(connection: Connection, organization_id: str) -> Organization:
    """Return an organization, in the caller's transaction. Raises UnknownOrganization."""
    one = {"name": None, "after": None, "limit": 1}
    rows = [row async for row in _queries.organizations(connection, id=organization_id, **one)]
    if not rows:
        raise UnknownOrganization(
            f"organization {organization_id}: not found; `teamfit organization list` has all, `add` makes one"
        )
    return _organization(rows[0])


def _organization(row: Mapping[str, Any]) -> Organization:
    found = Organization(**row)
    return replace(found, budget_kind=kind_of(found.budget, found.budget_kind))


def _require_same(what: str, wanted: object, found: object, *, hint: str) -> None:
    names = [field.name for field in fields(wanted) if field.name not in _TOLD]  # type: ignore[arg-type]
    different = [
        f"{name} {getattr(found, name)!r}, not {getattr(wanted, name)!r}"
        for name in names
        if getattr(found, name) != getattr(wanted, name)
    ]
    if different:
        raise Different(f"{what} is there with {', '.join(different)}: {hint}")
