"""A job as its organization sees it.

It is the read model's row; else what the intake knows of a job that was just accepted; else why the organization's
request for it is none.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal
from uuid import UUID

import aiosql
import asyncpg
from pydantic import (
    BaseModel,
    Field,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
)

from consumers.projection.fold import Status, status_of
from infra.auth import OPERATOR, Caller
from infra.clock import Moment
from infra.postgres import Connection
from streams.jobs.events import LONGEST_DELAY
from streams.jobs.invalid_requests import CODE, invalid_request
from streams.jobs.outcomes import ERROR_CODES
from streams.jobs.waits import WaitingFor, waiting_for

_queries = aiosql.from_path(Path(__file__).with_name("queries.sql"), "asyncpg")


# Open: rows of the Celery days have others, and so will newer versions.
_KNOWN_CODES = WithJsonSchema({"anyOf": [{"type": "string", "enum": list(ERROR_CODES)}, {"type": "string"}]})


class GroupSize(BaseModel):
    """An activity suits this many people, both ends included."""

    min: int
    max: int


_MOMENT: Final[TypeAdapter[datetime]] = TypeAdapter(Moment)


class Activity(BaseModel):
    """One team-building activity. Those of the Celery days have only a title and a description."""

    title: str
    description: str | None
    duration_minutes: int | None
    group_size: GroupSize | None
    materials: list[str] | None = Field(description="What has to be at hand; may be empty.")
    steps: list[str] | None = Field(description="What to do, in order.")
    objective: str | None

    @field_validator("group_size", "materials", "steps", mode="wrap")
    @classmethod
    def _absent_if_of_another_form(cls, value: object, read: ValidatorFunctionWrapHandler) -> object:
        """Show nothing where a row holds what no version of the pipeline wrote: the rest of the job is still good."""
        try:
            return read(value)
        except ValidationError:
            return None


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
    waiting_for: WaitingFor | None = Field(
        default=None, description="What the job waits for, unless it is being worked on or has ended."
    )
    started_at: datetime | None = None
    completed_at: datetime | None = Field(default=None, description="When the run ended, in whichever way.")
    error_code: Annotated[str, _KNOWN_CODES] | None = Field(
        default=None, description="Stable and machine-readable. More may be added."
    )
    error_message: str | None = None
    titles_so_far: list[str] = Field(
        default=[],
        description="While the LLM writes: the titles of the activities that it has written. None is saved yet.",
    )
    activities: list[Activity] = Field(default=[], description="Three, when the status is `completed`.")

    @property
    def has_ended(self) -> bool:
        """Return whether the newest run has ended, in any way."""
        return self.status in {"completed", "failed", "cancelled"}


async def find_job(connection: Connection, job_id: UUID, caller: Caller) -> JobStatus | None:
    """Return a job, or None if the caller's organization has no such job."""
    return await whole_job(connection, job_id, caller, await _folded(connection, job_id, caller))


async def whole_job(connection: Connection, job_id: UUID, caller: Caller, folded: JobStatus | None) -> JobStatus | None:
    """Return the whole of a job, of which the read model's row was read.

    What a live one waits for, when it begins and what is written so far stand elsewhere.

    Args:
        connection: to read the rest.
        job_id: which job.
        caller: who asks.
        folded: the row; None: there is none, or it is not the caller's.
    """
    job = folded or await job_without_row(connection, job_id, caller)
    if job is None or job.has_ended:
        return job
    more: dict[str, object] = {"waiting_for": await waiting_for(connection, job_id, job.run)}
    if job.status == "pending":
        asked = await _queries.run_at(connection, job_id=job_id, organization_id=job.organization_id)
        more["run_at"] = _yet_to_come(asked)
    else:
        rows = _queries.titles_so_far(connection, job_id=job_id, run=job.run)
        more["titles_so_far"] = [row["title"] async for row in rows]
    return job.model_copy(update=more)


async def find_standing(connection: Connection, job_id: UUID, caller: Caller) -> JobStatus | None:
    """Return a job without what only a live one has.

    That is what it waits for, when it begins, and what is written so far.
    """
    return await _folded(connection, job_id, caller) or await job_without_row(connection, job_id, caller)


async def find_rows(connection: Connection, asked: Sequence[tuple[UUID, Caller]]) -> Mapping[int, asyncpg.Record]:
    """Return the read model's rows of these callers' jobs, by place in the list."""
    rows = _queries.jobs(
        connection,
        job_ids=[job_id for job_id, _ in asked],
        organization_ids=[caller.organization_id for _, caller in asked],
        ownerless=[OPERATOR in caller.scopes for _, caller in asked],
    )
    return {row["place"] - 1: row async for row in rows}


async def _folded(connection: Connection, job_id: UUID, caller: Caller) -> JobStatus | None:
    row = (await find_rows(connection, [(job_id, caller)])).get(0)
    return None if row is None else of_row(row)


async def job_without_row(connection: Connection, job_id: UUID, caller: Caller) -> JobStatus | None:
    """Return a job that the read model has not, as `find_standing` does."""
    return await _just_accepted(connection, job_id, caller) or await _never_begun(connection, job_id, caller)


def of_row(row: asyncpg.Record) -> JobStatus:
    """Return the job that a row of the read model tells of."""
    status = status_of(row["status"])
    activities = row["activities"] if status == "completed" else None
    return JobStatus(**{**row, "status": status, "activities": activities or []})


async def _just_accepted(connection: Connection, job_id: UUID, caller: Caller) -> JobStatus | None:
    row = await _queries.accepted_request(connection, job_id=job_id, organization_id=caller.organization_id)
    if row is None:
        return None
    return JobStatus(run=1, **row)


async def _never_begun(connection: Connection, job_id: UUID, caller: Caller) -> JobStatus | None:
    invalid = await invalid_request(connection, job_id, caller.organization_id)
    if invalid is None:
        return None
    return JobStatus(
        job_id=job_id,
        status="failed",
        organization_id=caller.organization_id,
        team_id=None,
        run=1,
        created_at=invalid.first_failed_at,
        completed_at=invalid.last_failed_at,
        error_code=CODE,
        error_message=invalid.message,
    )


def _yet_to_come(run_at: str | None) -> datetime | None:
    try:
        moment = _MOMENT.validate_python(run_at)
    except ValidationError:
        return None
    # Later times are refused by quota, which may not have come to it yet.
    return moment if timedelta() < moment - datetime.now(UTC) < LONGEST_DELAY else None
