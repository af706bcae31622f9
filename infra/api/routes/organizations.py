"""The operators' routes to organizations: found, read, changed, and their ledger counted again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from infra.api.bearer import Authenticated
from infra.api.problems import BODY, TOKEN, Problem, responses
from infra.auth import OPERATOR
from infra.identity import Tokens
from infra.operations import quota, tenants
from infra.operations.job_search import Term
from infra.operations.prices import WrongPrice
from infra.postgres import Database

_LARGEST: Final = 2**31 - 1
_LARGEST_PAGE: Final = 500
_READS: Final = responses(*TOKEN, "invalid_request", "database_unavailable")
_READS_ONE: Final = responses(*TOKEN, "invalid_request", "organization_not_found", "database_unavailable")
_WRITES: Final = responses(*TOKEN, *BODY, "organization_not_found", "database_unavailable")


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

    return router


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
