"""Organizations are listed and shown; an operator adds and changes them, or recounts a ledger."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.routing import Route

from infra.console.desk import Desk
from infra.console.rendering import query
from infra.console.visits import Visit
from infra.errors import Refused
from infra.operations.prices import budget_of, spent
from infra.operations.quota import read_books, read_usage, repair
from infra.operations.tenants import (
    LONGEST_DESCRIPTION,
    LONGEST_NAME,
    Organization,
    Status,
    Team,
    add_organization,
    add_team,
    find_organizations,
    organization,
    set_organization,
    teams,
)
from infra.texts import STORABLE

_LISTED: Final = 100
_LARGEST: Final = 2**31 - 1

_Name = Annotated[str, Field(max_length=LONGEST_NAME), STORABLE]
_Description = Annotated[str, Field(max_length=LONGEST_DESCRIPTION), STORABLE]


class _Wanted(BaseModel):
    """The filter, and the page."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, STORABLE] | None = None
    after: Annotated[str, STORABLE] | None = None


class GivenShare(BaseModel):
    """A form gives these values to an organization or a plan; one left out stays."""

    model_config = ConfigDict(extra="forbid")

    weight: float | None = Field(default=None, ge=0.001, le=1000)
    max_in_flight: int | None = Field(default=None, ge=0, le=_LARGEST)
    requests_per_minute: int | None = Field(default=None, ge=0, le=1_000_000)
    max_waiting: int | None = Field(default=None, ge=0, le=_LARGEST)
    budget: Annotated[str, STORABLE] | None = Field(default=None, max_length=20)
    budget_kind: Literal["hard", "soft"] | None = None


class _Changes(GivenShare):
    """The values that the form of an organization may change; one that is left out stays."""

    name: _Name | None = None
    plan: _Name | None = None
    trust_score: float | None = Field(default=None, ge=0, le=1)
    monthly_quota: int | None = Field(default=None, ge=0, le=_LARGEST)
    status: str | None = Field(default=None, max_length=100)
    priority: bool | None = None
    as_plan: bool = False

    def values(self) -> Mapping[str, Any]:
        """Return them as the operation takes them, the budget in micro-units. Raises WrongPrice."""
        return {**self.model_dump(exclude={"as_plan"}), "budget": budget_of(self.budget)}


class _New(BaseModel):
    """The form of a new organization with its subscription."""

    model_config = ConfigDict(extra="forbid")

    id: _Name
    name: _Name | None = None
    plan: _Name = "team"
    status: Status = "active"
    monthly_quota: int = Field(default=100, ge=0, le=_LARGEST)
    trust_score: float = Field(default=1.0, ge=0, le=1)
    priority: bool = False


class _NewTeam(BaseModel):
    """The form of a new team; `id` is its organization's."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, STORABLE]
    team_id: _Name
    name: _Name | None = None
    size: int | None = Field(default=None, ge=1, le=_LARGEST)
    description: _Description | None = None


def address_of_organization(organization_id: str) -> str:
    """Return where an organization is shown."""
    return f"/organization{query({'id': organization_id})}"


def routes(desk: Desk) -> list[Route]:
    """Return the routes."""

    async def every(visit: Visit) -> Response:
        wanted = _Wanted.model_validate(visit.fields)
        found, following = await find_organizations(desk.database, wanted.name, limit=_LISTED, after=wanted.after)
        return desk.show(visit, "organizations.html", found=found, next=following, statuses=get_args(Status))

    async def model(visit: Visit) -> Mapping[str, Any]:
        organization_id = _id(visit)
        books = await read_books(desk.database, organization_id)
        known = books.subscription is not None
        return {
            "books": books,
            "usage": await read_usage(desk.database, organization_id),
            "months": await spent(desk.database, organization_id),
            "organization": await organization(desk.database, organization_id) if known else None,
            "teams": await teams(desk.database, organization_id) if known else [],
        }

    async def change(visit: Visit) -> Response:
        organization_id = _id(visit)
        changes = _Changes.model_validate({name: one for name, one in visit.fields.items() if name != "id"})
        await set_organization(desk.database, organization_id, changes.values(), as_plan=changes.as_plan)
        return desk.go(visit, address_of_organization(organization_id))

    async def recount(visit: Visit) -> Response:
        """Count the months again whose counters differ from the ledger."""
        organization_id = _id(visit)
        await repair(desk.database, await read_books(desk.database, organization_id))
        return desk.go(visit, address_of_organization(organization_id))

    return [
        *_adding(desk),
        desk.page("/organizations", every),
        desk.action("/organization/change", change),
        desk.action("/organization/recount", recount),
        *desk.live_page("/organization", "organization.html", model),
    ]


def _adding(desk: Desk) -> list[Route]:
    async def add(visit: Visit) -> Response:
        """Add an organization; one that is there with these values is no error."""
        new = _New.model_validate(visit.fields)
        wanted = Organization(**{**dict(new), "name": new.name or new.id})
        return desk.go(visit, address_of_organization((await add_organization(desk.database, wanted)).id))

    async def add_one_team(visit: Visit) -> Response:
        new = _NewTeam.model_validate(visit.fields)
        wanted = Team(new.team_id, new.id, new.name or new.team_id, new.size, new.description)
        return desk.go(visit, address_of_organization((await add_team(desk.database, wanted)).organization_id))

    return [desk.action("/organizations/add", add), desk.action("/organization/team", add_one_team)]


def _id(visit: Visit) -> str:
    """Return which organization. Its ID is no part of the path: it may hold any character."""
    if "id" not in visit.fields:
        raise Refused("invalid_request", "id: is missing; choose an organization from the list")
    return visit.fields["id"]
