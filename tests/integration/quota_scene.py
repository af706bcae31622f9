"""Organizations, requests and facts for the tests of the quota stage, and a look at its books."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg

from infra.postgres import Connection, Database
from streams.delivery.deliveries import Record
from streams.jobs.events import (
    Cancelled,
    Completed,
    Failed,
    JobCancelled,
    JobCompleted,
    JobEvent,
    JobFailed,
    JobId,
    JobRequested,
    fact_id,
    parse_event,
)
from streams.jobs.facts import job_requested
from tests.conftest import Pool

NOON = datetime(2031, 4, 15, 12, tzinfo=UTC)
PERIOD = "2031-04"


@dataclass
class ManualClock:
    """A clock that stands where it was set."""

    time: datetime = field(default=NOON)

    def now(self) -> datetime:
        return self.time


class CountingDatabase(Database):
    """Notes the statements of its transactions, those that begin and end them left out."""

    statements: list[str]

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False, for_values: bool = False) -> AsyncIterator[Connection]:
        self.statements = []
        async with super().transaction(snapshot=snapshot, for_values=for_values) as connection:
            with connection.query_logger(lambda query: self.statements.append(query.query)):
                yield connection


async def add_organization(
    pool: "Pool | asyncpg.Connection[asyncpg.Record]",
    name: str = "acme",
    *,
    trust_score: float = 0.9,
    plan: str | None = "team",
    status: str = "active",
    monthly_quota: int = 50,
    priority: bool = False,
) -> None:
    """Add an organization with a team "<name>-team" and, unless `plan` is None, a subscription."""
    await pool.execute("INSERT INTO organizations (id, name, trust_score) VALUES ($1, $1, $2)", name, trust_score)
    await pool.execute("INSERT INTO teams (id, organization_id, name) VALUES ($1 || '-team', $1, 'Red')", name)
    if plan is not None:
        await pool.execute(
            "INSERT INTO subscriptions (organization_id, plan, status, monthly_quota, priority) "
            "VALUES ($1, $2, $3, $4, $5)",
            *(name, plan, status, monthly_quota, priority),
        )


def request(
    organization_id: str = "acme", *, team_id: str | None = None, job_id: JobId | None = None, run: int = 1
) -> JobRequested:
    """A request of the organization's team for a job of its own."""
    return job_requested(
        job_id=job_id or JobId(uuid4()),
        organization_id=organization_id,
        team_id=team_id or f"{organization_id}-team",
        requirements="a quiet hour",
        at=NOON,
        run=run,
    )


def completed(of: JobRequested) -> JobCompleted:
    """The fact that the requested run completed."""
    return JobCompleted(
        id=fact_id(of.job_id, of.run, "completed"),
        subject=of.job_id,
        time=NOON,
        run=of.run,
        data=Completed(organization_id=of.data.organization_id, model="m", prompt_tokens=1, completion_tokens=1),
    )


def failed(of: JobRequested) -> JobFailed:
    """The fact that the requested run failed."""
    return JobFailed(
        id=fact_id(of.job_id, of.run, "failed"),
        subject=of.job_id,
        time=NOON,
        run=of.run,
        data=Failed(organization_id=of.data.organization_id, code="timeout", error_message="too slow"),
    )


def cancelled(of: JobRequested) -> JobCancelled:
    """The fact that the requested run was cancelled."""
    return JobCancelled(
        id=fact_id(of.job_id, of.run, "cancelled"),
        subject=of.job_id,
        time=NOON,
        run=of.run,
        data=Cancelled(organization_id=of.data.organization_id, reason="changed their mind"),
    )


def facts(admissions: Iterable[object]) -> list[JobEvent]:
    """The events in the records that requests came to."""
    events = []
    for admission in admissions:
        assert isinstance(admission, list | tuple), admission
        for record in admission:
            assert isinstance(record, Record)
            events.append(parse_event(record.value))
    return events


async def usage(pool: Pool, organization_id: str = "acme", period: str = PERIOD) -> tuple[int, int]:
    """The counters (reserved, charged) of a period, proven equal to the ledger's rows."""
    counted = await pool.fetchrow(
        "SELECT reserved, charged FROM quota_usage WHERE organization_id = $1 AND period = $2", organization_id, period
    )
    rows = await pool.fetchrow(
        "SELECT count(*) FILTER (WHERE state = 'reserved') AS reserved, count(*) FILTER (WHERE state = 'charged') "
        "AS charged FROM quota_ledger WHERE organization_id = $1 AND period = $2",
        *(organization_id, period),
    )
    assert rows is not None
    books = (rows["reserved"], rows["charged"])
    assert books == ((counted["reserved"], counted["charged"]) if counted else (0, 0))
    return books


async def state(pool: Pool, of: JobRequested) -> str | None:
    """The state of a run in the ledger."""
    found: str | None = await pool.fetchval(
        "SELECT state FROM quota_ledger WHERE job_id = $1 AND run = $2", of.job_id, of.run
    )
    return found
