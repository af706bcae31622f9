"""A job as its organization sees it: the read model's row, or what the intake knows of a job that was just accepted."""

from datetime import datetime
from pathlib import Path
from typing import Literal
from uuid import UUID

import aiosql
import asyncpg
from pydantic import BaseModel, Field, JsonValue

from consumers.projection.fold import Status, status_of
from infra.auth import OPERATOR, Caller
from infra.postgres import Connection

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

    @property
    def has_ended(self) -> bool:
        """Whether the newest run has ended, in whichever way."""
        return self.status in {"completed", "failed", "cancelled"}


async def find_job(connection: Connection, job_id: UUID, caller: Caller) -> JobStatus | None:
    """Return a job, or None if the caller's organization has no such job."""
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
