"""The sender of an invalid request gets an answer and need not poll for ever.

An entry of `job-requests` that is no valid request of a first run makes no job: it claims no job ID and decides
nothing. It is kept in `failed_events`; as long as the job that it names has no owner, the organization that it
names reads there why it was refused. A valid request with the same job ID, whoever sends it, before or after, starts
the job as if the other had never been. So no bad entry takes an ID from anybody or ends a job, in whatever order.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import aiosql

from infra.postgres import Connection

_queries = aiosql.from_path(Path(__file__).with_name("invalid_requests.sql"), "asyncpg")

CODE: Final = "invalid_event"


@dataclass(frozen=True, slots=True)
class InvalidRequest:
    """An organization's latest request for a job is invalid for this reason. First and last reading of it are kept."""

    message: str
    first_failed_at: datetime
    last_failed_at: datetime


async def invalid_request(connection: Connection, job_id: UUID, organization_id: str) -> InvalidRequest | None:
    """Return why a job is missing, if an invalid request named it. The request must be in this organization's name."""
    row = await _queries.latest(connection, job_id=job_id, organization_id=organization_id)
    return None if row is None else InvalidRequest(**row)
