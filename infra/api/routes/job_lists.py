"""Customers list their jobs and read their use; operators search everybody's jobs."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from consumers.projection.fold import Status
from infra.api.caller import Authenticated
from infra.api.problems import TOKEN, responses
from infra.auth import JOBS, OPERATOR, Caller
from infra.clock import Moment
from infra.errors import Refused
from infra.identity import Tokens
from infra.operations.job_search import Count, FoundJob, JobFilter, Order, Term, find_jobs, list_jobs
from infra.operations.prices import spent
from infra.operations.quota import read_usage
from infra.operations.schedule import DueEvent, read_due
from infra.postgres import Database

_LARGEST_PAGE = 100
_MONTHS: Final = 24
_LARGEST_OPERATORS_PAGE = 500
# As with a single job: answers differ by organization.
_CACHE = {"Cache-Control": "private, no-cache", "Vary": "Authorization"}
_PROBLEMS = responses(*TOKEN, "invalid_request", "database_unavailable")
_USAGE = responses(*TOKEN, "invalid_request", "organization_not_found", "database_unavailable")

Cursor = Annotated[
    str | None, Field(max_length=1_000, description="Where the page before ended: follow its `Link` instead.")
]


class JobsQuery(BaseModel):
    """The query for a customer's jobs."""

    model_config = ConfigDict(extra="forbid")

    status: Status | None = None
    team_id: Term | None = None
    since: Moment | None = Field(default=None, description="Asked for at or after this time.")
    limit: int = Field(default=50, ge=1, le=_LARGEST_PAGE)
    cursor: Cursor = None


class OperatorsJobsQuery(JobFilter):
    """The query for everybody's jobs: filter, order and page."""

    order: Order = "newest"
    limit: int = Field(default=50, ge=1, le=_LARGEST_OPERATORS_PAGE)
    cursor: Cursor = None


class ListedJob(BaseModel):
    """A customer's list shows this of a job; its activities are read job by job."""

    job_id: UUID
    status: Status
    team_id: str | None
    run: int = Field(description="1, and one more for each replay.")
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    error_code: str | None
    error_message: str | None

    @classmethod
    def of(cls, found: FoundJob) -> Self:
        """Return what a customer sees of a job that was found."""
        return cls(**{name: getattr(found, name) for name in cls.model_fields})


class JobList(BaseModel):
    """Jobs of the caller's organization, the newest first."""

    jobs: list[ListedJob]


class BoundedCount(BaseModel):
    """A number that is exact up to 10,000."""

    number: int
    more: bool = Field(description="Whether there are more than that, or may be: not all was looked at.")

    @classmethod
    def of(cls, count: Count) -> Self:
        """Return the count as it is sent."""
        return cls(number=count.number, more=count.more or count.partly)


class OperatorsJobList(BaseModel):
    """Jobs of all organizations."""

    total: BoundedCount = Field(description="How many the filter finds, on all pages.")
    jobs: list[FoundJob]
    next: str | None = Field(description="Give it as `cursor` for the next page; absent on the last one.")
    looked_at: int | None = Field(
        description="Jobs that were looked at for this page, where very many requirements have the words: it may have "
        "fewer than `limit`, and the next one goes on."
    )
    notice: str | None = Field(
        description="Why there are none, where the filter names an organization or a team that is not known."
    )


class ScheduleQuery(BaseModel):
    """The query for what is published later."""

    model_config = ConfigDict(extra="forbid")

    topic: Term | None = None
    limit: int = Field(default=50, ge=1, le=_LARGEST_OPERATORS_PAGE)
    cursor: Cursor = None


class UsageQuery(BaseModel):
    """The query for an organization's use."""

    model_config = ConfigDict(extra="forbid")

    organization_id: Term


class Schedule(BaseModel):
    """Events that are published later, the soonest first."""

    total: BoundedCount
    overdue: BoundedCount
    events: list[DueEvent]
    next: str | None = Field(description="Give it as `cursor` for the next page; absent on the last one.")


class MonthsMoney(BaseModel):
    """LLM calls of a month (UTC) have used tokens and money. Money is in millionths of the currency's unit."""

    period: str = Field(description="The month, such as `2031-04`.")
    calls: int
    prompt_tokens: int
    completion_tokens: int
    maybe_billed_calls: int = Field(description="Calls of which not all is known; the cost has them at the dearest.")
    cost: int
    unpriced_calls: int = Field(description="Calls whose model has no price; they are not in the cost.")
    currency: str | None = Field(description="Absent where no model has a price.")


class OrganizationUsage(BaseModel):
    """The caller's organization in the current month (UTC)."""

    organization_id: str
    period: str = Field(description="The month, such as `2031-04`.")
    reset_at: datetime = Field(description="When the next month's quota begins.")
    monthly_quota: int | None = Field(description="Jobs that may be taken; absent without a subscription.")
    reserved: int = Field(description="Units that jobs hold which have not ended.")
    charged: int = Field(description="Units of jobs that have completed.")
    left: int | None = Field(description="Jobs that may still be asked for.")
    waiting: BoundedCount = Field(description="Pending jobs; those with a `run_at` from then on.")
    in_flight: BoundedCount = Field(description="Jobs that are being processed.")
    budget: int | None = Field(description="What the month's calls may cost, in millionths; absent without a budget.")
    budget_kind: Literal["hard", "soft"] | None = Field(description="Whether the budget stops it, or is told.")
    months: list[MonthsMoney] = Field(description="The latest first, two years at most.")

    @classmethod
    async def read(cls, database: Database, organization_id: str, *, must_exist: bool = False) -> Self:
        """Return an organization's use. An unknown one has none, unless it must exist: that raises Refused."""
        usage = await read_usage(database, organization_id)
        if must_exist and not usage.is_known:
            raise Refused("organization_not_found", f"organization {organization_id}: not known; check the ID")
        months = await spent(database, organization_id)
        plain = set(cls.model_fields) - {"waiting", "in_flight", "months"}
        return cls(
            **{name: getattr(usage, name) for name in plain},
            waiting=BoundedCount.of(usage.waiting),
            in_flight=BoundedCount.of(usage.in_flight),
            months=[MonthsMoney(**asdict(one)) for one in months[:_MONTHS]],
        )


def create_router(database: Database, tokens: Tokens) -> APIRouter:
    """Return the routes that list a customer's jobs and tell its use."""
    router = APIRouter()
    customer = Authenticated(tokens, scope=JOBS)

    @router.get("/api/jobs", tags=["jobs"], responses=_PROBLEMS)
    async def list_jobs(
        http: Request,
        response: Response,
        query: Annotated[JobsQuery, Query()],
        caller: Annotated[Caller, Depends(customer)],
    ) -> JobList:
        """List the jobs of the caller's organization, the newest first.

        The header `Link` has the address of the next page as `rel="next"`, unless this is the last one. A job is listed
        once the pipeline has read its request, a moment after it was accepted.
        """
        chosen = JobFilter(
            organization_id=caller.organization_id, **query.model_dump(include={"status", "team_id", "since"})
        )
        page = await find_jobs(database, chosen, limit=query.limit, cursor=query.cursor)
        response.headers.update(_CACHE)
        if page.next is not None:
            following = {**query.model_dump(mode="json", exclude_none=True), "cursor": page.next}
            address = f"{http.scope.get('root_path', '')}/api/jobs?{urlencode(following)}"
            response.headers["Link"] = f'<{address}>; rel="next"'
        return JobList(jobs=[ListedJob.of(one) for one in page.jobs])

    @router.get("/api/usage", tags=["jobs"], responses=responses(*TOKEN, "database_unavailable"))
    async def show_usage(response: Response, caller: Annotated[Caller, Depends(customer)]) -> OrganizationUsage:
        """Return the organization's quota, its live jobs, and what LLM calls cost by month."""
        response.headers.update(_CACHE)
        return await OrganizationUsage.read(database, caller.organization_id)

    return router


def create_operators_router(database: Database, tokens: Tokens) -> APIRouter:
    """Return the routes that list everybody's jobs, and what is published later."""
    router = APIRouter()
    operator = Authenticated(tokens, scope=OPERATOR)

    @router.get("/api/ops/jobs", tags=["operators"], responses=_PROBLEMS, dependencies=[Depends(operator)])
    async def search_jobs(query: Annotated[OperatorsJobsQuery, Query()]) -> OperatorsJobList:
        """Find jobs of all organizations, by any of what is known of them."""
        chosen = JobFilter(**query.model_dump(include=set(JobFilter.model_fields)))
        page, total = await list_jobs(database, chosen, order=query.order, limit=query.limit, cursor=query.cursor)
        return OperatorsJobList(
            total=BoundedCount.of(total),
            jobs=list(page.jobs),
            next=page.next,
            looked_at=page.looked_at,
            notice=page.notice,
        )

    @router.get("/api/ops/usage", tags=["operators"], responses=_USAGE, dependencies=[Depends(operator)])
    async def show_usage_of(query: Annotated[UsageQuery, Query()]) -> OrganizationUsage:
        """Return what an organization has taken and cost."""
        return await OrganizationUsage.read(database, query.organization_id, must_exist=True)

    @router.get("/api/ops/schedule", tags=["operators"], responses=_PROBLEMS, dependencies=[Depends(operator)])
    async def list_due(query: Annotated[ScheduleQuery, Query()]) -> Schedule:
        """List what is published later and why: retries, and jobs that wait for their time."""
        page = await read_due(database, topic=query.topic, limit=query.limit, cursor=query.cursor)
        return Schedule(
            total=BoundedCount.of(page.total),
            overdue=BoundedCount.of(page.overdue),
            events=list(page.events),
            next=page.next,
        )

    return router
