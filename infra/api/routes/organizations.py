"""The operators' routes to organizations: found, read, added, changed, and their ledger counted again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Final, Literal, TypeAlias

from fastapi import APIRouter, Depends, Query, params
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from infra.api.caller import Authenticated
from infra.api.problems import BODY, TOKEN, Problem, responses
from infra.auth import OPERATOR
from infra.identity import Tokens
from infra.operations import quota, tenants
from infra.operations.job_search import Term
from infra.operations.prices import WrongPrice
from infra.postgres import Database
from infra.texts import STORABLE

_LARGEST: Final = 2**31 - 1
_LARGEST_PAGE: Final = 500
_READS: Final = responses(*TOKEN, "invalid_request", "database_unavailable")
_READS_ONE: Final = responses(*TOKEN, "invalid_request", "organization_not_found", "database_unavailable")
_WRITES: Final = responses(*TOKEN, *BODY, "organization_not_found", "database_unavailable")
_ADDS: Final = responses(*TOKEN, *BODY, "database_unavailable")

Name: TypeAlias = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=tenants.LONGEST_NAME), STORABLE
]
Description: TypeAlias = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=tenants.LONGEST_DESCRIPTION), STORABLE
]


class OrganizationsQuery(BaseModel):
    """The query for organizations."""

    model_config = ConfigDict(extra="forbid")

    name: Term | None = Field(default=None, description="A part of the ID or of the name.")
    limit: int = Field(default=100, ge=1, le=_LARGEST_PAGE)
    after: Term | None = Field(default=None, description="`next` of the page before.")


class OrganizationQuery(BaseModel):
    """The query for one organization."""

    model_config = ConfigDict(extra="forbid")

    organization_id: Term


class OrganizationList(BaseModel):
    """Organizations in the order of their IDs."""

    organizations: list[tenants.Organization]
    next: str | None = Field(description="Give it as `after` for the next page; absent on the last one.")


class QuotaMonth(BaseModel):
    """A month of an organization has counters, beside the sums of its ledger."""

    period: str
    reserved: int
    charged: int
    ledger_reserved: int
    ledger_charged: int
    released: int
    rejected: int
    differs: bool


class OrganizationBooks(BaseModel):
    """An organization, if the backend knows it, with its teams and months."""

    organization: tenants.Organization | None
    teams: list[tenants.Team]
    months: list[QuotaMonth] = Field(description="The newest first.")


class OrganizationChanges(BaseModel):
    """These values of an organization change; one that is left out stays."""

    model_config = ConfigDict(extra="forbid")

    organization_id: Term
    plan: Term | None = None
    status: Term | None = None
    monthly_quota: int | None = Field(default=None, ge=0, le=_LARGEST)
    priority: bool | None = None
    trust_score: float | None = Field(default=None, ge=0, le=1)
    weight: float | None = Field(default=None, ge=0.001, le=1000, description="Its share against others'.")
    max_in_flight: int | None = Field(default=None, ge=0, le=_LARGEST, description="Runs at once; 0 pauses it.")
    requests_per_minute: int | None = Field(default=None, ge=0, le=_LARGEST)
    max_waiting: int | None = Field(default=None, ge=0, le=_LARGEST)
    budget: int | None = Field(default=None, ge=0, le=10**15, description="In millionths of the currency's unit.")
    budget_kind: Literal["hard", "soft"] | None = None
    as_plan: bool = Field(default=False, description="Weight, cap, limits and budget that are left out: its plan's.")


class NewOrganization(BaseModel):
    """An organization to add, with its subscription."""

    model_config = ConfigDict(extra="forbid")

    organization_id: Name
    name: Name | None = Field(default=None, description="What people call it; its ID if left out.")
    trust_score: float = Field(default=1.0, ge=0, le=1)
    plan: Name = Field(default="team", description="`free` may request nothing.")
    status: tenants.Status = Field(default="active", description="Only `active` may request.")
    monthly_quota: int = Field(default=100, ge=0, le=_LARGEST, description="Jobs a month (UTC).")
    priority: bool = Field(default=False, description="Whether its share is four times its plan's.")
    weight: float | None = Field(default=None, ge=0.001, le=1000, description="Its share against others'.")
    max_in_flight: int | None = Field(default=None, ge=0, le=_LARGEST, description="Runs at once; 0 pauses it.")

    def organization(self) -> tenants.Organization:
        """Return it as the operations take it."""
        given = self.model_dump(exclude={"organization_id", "name"})
        return tenants.Organization(id=self.organization_id, name=self.name or self.organization_id, **given)


class NewTeam(BaseModel):
    """A team to add to an organization."""

    model_config = ConfigDict(extra="forbid")

    team_id: Name
    organization_id: Term
    name: Name | None = Field(default=None, description="What people call it; its ID if left out.")
    size: int | None = Field(default=None, ge=1, le=_LARGEST, description="How many people it has.")
    description: Description | None = Field(default=None, description="Who they are; it stands in the prompt.")

    def team(self) -> tenants.Team:
        """Return it as the operations take it."""
        given = (self.team_id, self.organization_id, self.name or self.team_id, self.size, self.description)
        return tenants.Team(*given)


def create_router(database: Database, tokens: Tokens) -> APIRouter:
    """Return the routes. An ID may hold any character, so it is no part of a path."""
    router = APIRouter(prefix="/api/ops/organizations", tags=["operators"])
    operator = Authenticated(tokens, scope=OPERATOR, logs=database)
    guarded = [Depends(operator)]

    @router.get("", responses=_READS, dependencies=guarded)
    async def list_organizations(query: Annotated[OrganizationsQuery, Query()]) -> OrganizationList:
        """List organizations with their subscriptions, and what of each waits and is worked on."""
        found, following = await tenants.find_organizations(database, query.name, limit=query.limit, after=query.after)
        return OrganizationList(organizations=list(found), next=following)

    @router.get("/books", responses=_READS_ONE, dependencies=guarded)
    async def show_books(query: Annotated[OrganizationQuery, Query()]) -> OrganizationBooks:
        """Return an organization with its quota by month; `GET /api/ops/usage` has its use and money."""
        with _refusals():
            return await _books(database, query.organization_id)

    @router.post("/set", responses=_WRITES, dependencies=guarded)
    async def set_organization(body: OrganizationChanges) -> tenants.Organization:
        """Change what is given of an organization. It applies to the next request; what is in flight stays."""
        changes = body.model_dump(exclude={"organization_id", "as_plan"})
        with _refusals():
            return await tenants.set_organization(database, body.organization_id, changes, as_plan=body.as_plan)

    @router.post("/recount", responses=_WRITES, dependencies=guarded)
    async def recount(body: OrganizationQuery) -> OrganizationBooks:
        """Count the months again whose counters differ from the ledger. A repeat changes nothing."""
        with _refusals():
            await quota.repair(database, await quota.read_books(database, body.organization_id))
            return await _books(database, body.organization_id)

    _add_adding(router, database, guarded)
    return router


def _add_adding(router: APIRouter, database: Database, guarded: Sequence[params.Depends]) -> None:
    @router.post("/add", responses=_ADDS, dependencies=guarded)
    async def add_organization(body: NewOrganization) -> tenants.Organization:
        """Add an organization with its subscription. One that is there with these values is no error."""
        with _refusals():
            return await tenants.add_organization(database, body.organization())

    @router.post("/teams/add", responses=_WRITES, dependencies=guarded)
    async def add_team(body: NewTeam) -> tenants.Team:
        """Add a team to an organization. One that is there with these values is no error."""
        with _refusals():
            return await tenants.add_team(database, body.team())


async def _books(database: Database, organization_id: str) -> OrganizationBooks:
    books = await quota.read_books(database, organization_id)
    known = None if books.subscription is None else await tenants.organization(database, organization_id)
    months = [QuotaMonth(**{name: getattr(one, name) for name in QuotaMonth.model_fields}) for one in books.periods]
    members = [] if known is None else await tenants.teams(database, organization_id)
    return OrganizationBooks(organization=known, teams=list(members), months=months)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (tenants.UnknownOrganization, quota.UnknownOrganization) as error:
        raise Problem(404, "organization_not_found", str(error)) from error
    except (tenants.Different, tenants.NotOurs, WrongPrice) as error:
        raise Problem(422, "invalid_request", str(error)) from error
