"""The demo sends jobs by all three ways in, with every kind of refusal.

It follows them through the archive until they end.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final, assert_never
from uuid import UUID, uuid4

import aiohttp
import aiosql
from redis.asyncio import Redis

from infra.errors import TeamfitError
from infra.local.demo_report import HttpRefusal, Job, Moment, Report, WayIn
from infra.local.organizations import ACME, BIRCH, CEDAR, DUNE, ELM, Organization
from infra.local.stack import Stack
from infra.postgres import Database
from infra.settings import Settings
from producers.client import JobRequests
from streams.jobs.events import JobId
from streams.jobs.facts import job_requested
from streams.jobs.topics import JOB_REQUESTS

_queries = aiosql.from_path(Path(__file__).with_name("demo.sql"), "asyncpg")

_POLL_S = 0.1
_FOR_ACME = "A 60 minute remote session for 9 people. Half the team is new: help them learn whom to ask for what."
_FOR_BIRCH = "Something creative outdoors for 6 designers, about 45 minutes, not competitive."
_SHORT = "A short game to start the week with."


@dataclass(frozen=True, slots=True)
class _Request:
    """A request to send. The organization is only an ID: one of them does not exist."""

    way_in: WayIn
    organization_id: str
    team_id: str
    requirements: str = _SHORT
    refusal: str | None = None


def _refused(organization: Organization) -> _Request:
    return _Request("xadd", organization.id, organization.team.id, refusal=organization.refusal)


# Refusals go by the stream, because HTTP refuses at once and records no job.
_REQUESTS: Final = (
    _Request("http", ACME.id, ACME.team.id, _FOR_ACME),
    _Request("client", BIRCH.id, BIRCH.team.id, _FOR_BIRCH),
    _Request("xadd", ACME.id, ACME.team.id),
    _refused(CEDAR),
    _refused(DUNE),
    _refused(ELM),
    _Request("xadd", BIRCH.id, "no-such-team", refusal="team_not_found"),
    _Request("xadd", "nobody", "no-such-team", refusal="organization_not_found"),
)
_REFUSED_AT_ONCE: Final = (
    (CEDAR, HTTPStatus.TOO_MANY_REQUESTS),
    (DUNE, HTTPStatus.PAYMENT_REQUIRED),
    (ELM, HTTPStatus.FORBIDDEN),
)


class NeedsRedis(TeamfitError):
    """The demo cannot be shown on this broker."""


def require_redis(settings: Settings) -> None:
    """Raise NeedsRedis if the settings name a broker that knows no XADD."""
    if settings.broker_url.startswith("kafka:"):
        raise NeedsRedis(
            "BROKER_URL is kafka://: one of the three ways in that the demo shows, XADD, needs Redis. Unset it for the "
            "demo, or run `teamfit up`, which takes requests over HTTP and by the Python client on Kafka too"
        )


async def run_demo(stack: Stack, show: Callable[[Sequence[Job]], None], *, deadline_s: float) -> Report:
    """Send everything to a running stack, follow it to its end, and report. A deadline bounds it.

    Args:
        stack: a running one with every part.
        show: called with the jobs whenever one of them has moved.
        deadline_s: how long the slowest job may take.

    Raises:
        LocalServerError: a part of the stack ended by itself.
        TeamfitError: a request could not be sent.
    """
    start = time.monotonic()
    database = Database(stack.settings.database_url, size=1)
    try:
        async with (
            aiohttp.ClientSession(stack.api_url) as http,
            JobRequests.connect(stack.settings.broker_url, source="demo") as client,
        ):
            ways = _WaysIn(stack, http, client)
            jobs = [await ways.send(request) for request in _REQUESTS]
            show(jobs)
            while not all(job.ended for job in jobs) and time.monotonic() < start + deadline_s:
                await asyncio.sleep(_POLL_S)
                stack.check()
                if await _follow(database, jobs):
                    show(jobs)
            for job in jobs:
                await ways.read(job)
            show(jobs)
            refusals = [await ways.refused_at_once(organization, status) for organization, status in _REFUSED_AT_ONCE]
    finally:
        await database.close()
    return Report(jobs=jobs, http_refusals=refusals, seconds=round(time.monotonic() - start, 3))


class _WaysIn:
    """Sends requests by each way in, and reads their jobs over HTTP."""

    def __init__(self, stack: Stack, http: aiohttp.ClientSession, client: JobRequests) -> None:
        self._stack = stack
        self._http = http
        self._client = client

    async def send(self, request: _Request) -> Job:
        sent_at = datetime.now(UTC)
        match request.way_in:
            case "http":
                job_id = await self._by_http(request)
            case "client":
                job_id = await self._by_client(request)
            case "xadd":
                job_id = await self._by_xadd(request)
            case _:
                assert_never(request.way_in)
        return Job(
            job_id=job_id,
            way_in=request.way_in,
            organization_id=request.organization_id,
            team_id=request.team_id,
            requirements=request.requirements,
            sent_at=sent_at,
            expected_refusal=request.refusal,
        )

    async def read(self, job: Job) -> None:
        """Take over what the API says about a job."""
        async with self._http.get(f"/api/jobs/{job.job_id}", headers=self._headers(job.organization_id)) as answer:
            if answer.status != HTTPStatus.OK:
                job.status = f"unknown to the API ({answer.status})"
                return
            body = await answer.json()
        job.status = body["status"]
        job.refusal_code = body["error_code"]
        job.message = body["error_message"]
        job.activities = body["activities"]

    async def refused_at_once(self, organization: Organization, expected: HTTPStatus) -> HttpRefusal:
        """Ask over HTTP for what the organization may not have."""
        status, body = await self._post(organization.id, organization.team.id, _SHORT)
        return HttpRefusal(
            organization_id=organization.id, expected_status=expected, status=status, code=body.get("code")
        )

    async def _by_http(self, request: _Request) -> UUID:
        status, body = await self._post(request.organization_id, request.team_id, request.requirements)
        if status != HTTPStatus.ACCEPTED:
            msg = f"the API did not accept the request of {request.organization_id}: {status} {body.get('detail')}"
            raise TeamfitError(msg)
        return UUID(body["job_id"])

    async def _by_client(self, request: _Request) -> UUID:
        return await self._client.submit(
            organization_id=request.organization_id, team_id=request.team_id, requirements=request.requirements
        )

    async def _by_xadd(self, request: _Request) -> UUID:
        event = job_requested(
            job_id=JobId(uuid4()),
            organization_id=request.organization_id,
            team_id=request.team_id,
            requirements=request.requirements,
            at=datetime.now(UTC),
            source="demo",
        )
        async with Redis.from_url(self._stack.broker_address) as redis:
            await redis.execute_command("XADD", JOB_REQUESTS, "*", "key", event.key, "event", event.encode())
        return event.job_id

    async def _post(self, organization_id: str, team_id: str, requirements: str) -> tuple[int, dict[str, str]]:
        async with self._http.post(
            "/api/activities/generate-custom",
            json={"organization_id": organization_id, "team_id": team_id, "requirements": requirements},
            headers=self._headers(organization_id),
        ) as answer:
            return answer.status, await answer.json(content_type=None)

    def _headers(self, organization_id: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._stack.token(organization_id)}"}


async def _follow(database: Database, jobs: Sequence[Job]) -> bool:
    """Add to each job what the archive and the ledger know by now; return whether anything is new."""
    before = [(len(job.timeline), job.quota) for job in jobs]
    by_id = {job.job_id: job for job in jobs}
    async with database.transaction() as connection:
        facts = [row async for row in _queries.facts(connection, job_ids=list(by_id))]
        reservations = [row async for row in _queries.reservations(connection, job_ids=list(by_id))]
    for job in jobs:
        job.timeline = [
            Moment(type=row["type"], time=row["time"], seconds=round((row["time"] - job.sent_at).total_seconds(), 3))
            for row in facts
            if row["job_id"] == job.job_id
        ]
    for row in reservations:
        by_id[row["job_id"]].quota = row["state"]
    return before != [(len(job.timeline), job.quota) for job in jobs]
