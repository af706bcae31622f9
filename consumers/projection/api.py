"""What customers read over HTTP: the state of a job and, once it is completed, its activities."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

import aiosql
import asyncpg
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field, JsonValue

from consumers.projection.fold import Status, status_of
from infra.auth import JOBS, OPERATOR, Caller
from infra.bearer import Authenticated
from infra.postgres import Connection, Database
from infra.problems import Problem, responses

_queries = aiosql.from_path(Path(__file__).with_name("queries.sql"), "asyncpg")


class Activity(BaseModel):
    """One team-building activity. Those of the Celery days have only a title and a description."""

    title: str
    description: str | None
    duration_minutes: int | None
    group_size: JsonValue
    materials: JsonValue
    steps: JsonValue
    objective: str | None


class JobStatus(BaseModel):
    """A job as its organization sees it."""

    success: Literal[True] = True
    job_id: UUID
    status: Status
    organization_id: str | None
    team_id: str | None
    run: int = Field(description="1, and one more for each replay.")
    created_at: datetime
    run_at: datetime | None = Field(default=None, description="While the job waits for its time: when it begins.")
    started_at: datetime | None = None
    completed_at: datetime | None = Field(default=None, description="When the run ended, in whichever way.")
    error_code: str | None = Field(default=None, description="Stable and machine-readable, e.g. `quota_exceeded`.")
    error_message: str | None = None
    activities: list[Activity] = Field(default=[], description="Three, when the status is `completed`.")


def create_router(database: Database, signing_key: str) -> APIRouter:
    """Return the routes that read jobs."""
    router = APIRouter(prefix="/api/jobs", tags=["jobs"])
    authenticated = Authenticated(signing_key, scope=JOBS)

    @router.get("/{job_id}", responses=responses(401, 403, 404, 422, 503))
    async def get_job(job_id: UUID, caller: Annotated[Caller, Depends(authenticated)]) -> JobStatus:
        """Return a job's status, its activities when it is completed, its error when it failed.

        A job that was just accepted is `pending`. A job of another organization is as unknown as one that never was.
        """
        async with database.transaction() as connection:
            job = await _find(connection, job_id, caller)
        if job is None:
            raise Problem(404, "job_not_found", f"job {job_id}: not found; it may belong to another organization")
        return job

    return router


async def _find(connection: Connection, job_id: UUID, caller: Caller) -> JobStatus | None:
    row = await _queries.job(
        connection,
        job_id=job_id,
        organization_id=caller.organization_id,
        ownerless=OPERATOR in caller.scopes,
    )
    job = JobStatus(**{**row, "status": status_of(row["status"])}) if row else None
    job = job or await _just_accepted(connection, job_id, caller)
    if job is not None and job.status == "pending":
        run_at = await _queries.run_at(connection, job_id=job_id, organization_id=job.organization_id)
        return job.model_copy(update={"run_at": run_at})
    if job is None or job.status != "completed":
        return job
    activities = [_activity(row) async for row in _queries.activities(connection, job_id=job_id)]
    return job.model_copy(update={"activities": activities})


async def _just_accepted(connection: Connection, job_id: UUID, caller: Caller) -> JobStatus | None:
    row = await _queries.accepted_request(connection, job_id=job_id, organization_id=caller.organization_id)
    if row is None:
        return None
    return JobStatus(run=1, **row)


def _activity(row: asyncpg.Record) -> Activity:
    return Activity(**row)
