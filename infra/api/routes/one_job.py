"""Operators see everything about one job, and cancel some."""

from collections.abc import Sequence
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from infra.api.caller import Authenticated
from infra.api.problems import BODY, TOKEN, Problem, responses
from infra.auth import OPERATOR
from infra.identity import Tokens
from infra.operations.job_content import EventPage, JobContent, archived_events, content_of
from infra.operations.job_search import Term
from infra.operations.jobs import CancelResult, JobLife, UnknownJob, cancel, known_jobs, life_of, may_be_cancelled
from infra.postgres import Database
from producers.cancellation import Cancellation
from streams.delivery.interfaces import Publisher

_MOST_FACTS: Final = 200
_LARGEST_PAGE: Final = 500
_LARGEST_CHOICE: Final = 500
_LARGEST_PLACE: Final = 2**63 - 1
_READ: Final = (*TOKEN, "invalid_request", "database_unavailable")
_ONE: Final = responses(*_READ, "job_not_found")
_EVENTS: Final = responses(*_READ)
_WRITE: Final = responses(*TOKEN, *BODY, "database_unavailable")


class OperatorsJob(BaseModel):
    """The record of one job, and what its customer wrote and got."""

    life: JobLife = Field(description="What is known of it, step by step; of its events the first 200.")
    content: JobContent


class JobEventsQuery(BaseModel):
    """The query for a job's events."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(default=0, ge=0, le=_LARGEST_PLACE, description="`next` of the page before.")
    limit: int = Field(default=100, ge=1, le=_LARGEST_PAGE)


class ChosenJobs(BaseModel):
    """Some jobs."""

    model_config = ConfigDict(extra="forbid")

    job_ids: list[UUID] = Field(min_length=1, max_length=_LARGEST_CHOICE)


class StandingJob(BaseModel):
    """A job as it stands now."""

    job_id: UUID
    is_known: bool
    organization_id: str | None
    run: int | None = Field(description="The newest.")
    ended: str | None = Field(description="How that ended; absent: not yet.")


class CancelEffects(BaseModel):
    """The jobs as they stand, and how many would be cancelled."""

    jobs: list[StandingJob]
    living: int


class CancelJobs(ChosenJobs):
    """The jobs that are cancelled, and why."""

    because: Term = Field(max_length=500, description="Why; the customers read it.")


def create_router(database: Database, publisher: Publisher, tokens: Tokens) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/ops/jobs", tags=["operators"])
    guarded = [Depends(Authenticated(tokens, scope=OPERATOR, logs=database))]
    cancellation = Cancellation(database, publisher, database.clock)

    @router.post("/cancel/effects", responses=_WRITE, dependencies=guarded)
    async def show_cancel_effects(body: ChosenJobs) -> CancelEffects:
        """Say how jobs stand, and how many would be cancelled; nothing is done."""
        found = await known_jobs(database, list(dict.fromkeys(body.job_ids)))
        jobs = [
            StandingJob(
                job_id=job,
                is_known=known.is_known,
                organization_id=known.organization_id,
                run=known.run,
                ended=known.ended,
            )
            for job, known in found
        ]
        return CancelEffects(jobs=jobs, living=sum(may_be_cancelled(known) for _, known in found))

    @router.post("/cancel", responses=_WRITE, dependencies=guarded)
    async def cancel_jobs(body: CancelJobs) -> Sequence[CancelResult]:
        """Cancel jobs of any organization, as their customers could.

        The answer says for each what became of it. Those that have ended stay as they are. A repeat returns the same.
        """
        wanted = dict.fromkeys(body.job_ids)
        return [await cancel(cancellation, job, because=body.because) for job in wanted]

    @router.get("/{job_id}", responses=_ONE, dependencies=guarded)
    async def show_job_life(job_id: UUID) -> OperatorsJob:
        """Return everything that is known of a job of any organization."""
        try:
            life = await life_of(database, job_id, most_facts=_MOST_FACTS)
        except UnknownJob as error:
            raise Problem(404, "job_not_found", str(error)) from error
        return OperatorsJob(life=life, content=await content_of(database, job_id))

    @router.get("/{job_id}/events", responses=_EVENTS, dependencies=guarded)
    async def list_job_events(job_id: UUID, query: Annotated[JobEventsQuery, Query()]) -> EventPage:
        """List a job's archived events in the order of arrival, each as JSON."""
        return await archived_events(database, job_id, after=query.after, limit=query.limit)

    return router
