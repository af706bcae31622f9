"""A customer of the running pipeline: asks by any way in, reads over HTTP."""

import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aiohttp
from redis.asyncio import Redis

from infra.local.organizations import BIRCH
from infra.local.stack import Stack
from producers.client import JobRequests, Request
from tests.verified import assert_consistent
from tests.waiting import wait_for

WISH = "Something creative outdoors for 6 designers, about 45 minutes."


@dataclass(frozen=True)
class Customer:
    """Speaks for Birch unless told otherwise."""

    stack: Stack
    http: aiohttp.ClientSession

    async def post(
        self,
        body: str | None = None,
        *,
        organization_id: str = BIRCH.id,
        headers: Mapping[str, str] | None = None,
        **wishes: str,
    ) -> tuple[int, Any]:
        """Ask over HTTP; return the status and the document. `body` is sent as it is, `wishes` replace fields."""
        request = {
            "organization_id": organization_id,
            "team_id": BIRCH.team.id,
            "requirements": WISH,
        } | wishes
        content: dict[str, Any] = {"json": request} if body is None else {"data": io.BytesIO(body.encode())}
        async with self.http.post(
            "/api/activities/generate-custom", headers={**self._headers(organization_id), **(headers or {})}, **content
        ) as answer:
            return answer.status, await answer.json(content_type=None)

    async def xadd(self, *fields: str | bytes, topic: str = "job-requests") -> None:
        """Write an entry as any language can: with a plain XADD."""
        async with Redis.from_url(self.stack.broker_address) as redis:
            await redis.execute_command("XADD", topic, "*", *fields)

    async def job(self, job_id: UUID | str, *, organization_id: str = BIRCH.id) -> Any:
        """Read a job over HTTP."""
        async with self.http.get(f"/api/jobs/{job_id}", headers=self._headers(organization_id)) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def ended_job(self, job_id: UUID | str, *, organization_id: str = BIRCH.id, deadline_s: float = 30) -> Any:
        """Read a job once it is completed or failed."""

        async def ended() -> Any:
            job = await self.job(job_id, organization_id=organization_id)
            assert job["status"] in {"completed", "failed"}, job
            return job

        return await wait_for(ended, deadline_s=deadline_s, what=f"job {job_id} to end")

    async def gets_three_activities(self) -> None:
        """Ask for activities and get them: whatever came before, the pipeline works."""
        status, accepted = await self.post()
        assert status == 202, accepted
        job = await self.ended_job(accepted["job_id"])
        assert_three_activities(job)

    def _headers(self, organization_id: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.stack.token(organization_id)}", "Content-Type": "application/json"}


def assert_three_activities(job: Any) -> None:
    """A completed job has three activities, each with everything that a facilitator needs."""
    assert job["status"] == "completed", job
    assert len(job["activities"]) == 3
    for activity in job["activities"]:
        assert activity["title"]
        assert activity["description"]
        assert activity["objective"]
        assert activity["duration_minutes"] > 0
        assert activity["steps"]
        assert activity["group_size"]


def hand_written(job_id: str, organization_id: str, team_id: str, **changes: Any) -> str:
    """Return a request event as a person would write it; `changes` replace attributes, None removes one."""
    event = {
        "specversion": "1.0",
        "id": f"by-hand-{job_id}",
        "source": "by-hand",
        "type": "teamfit.job.requested.v1",
        "subject": job_id,
        "time": datetime.now(UTC).isoformat(),
        "data": {"organization_id": organization_id, "team_id": team_id, "requirements": WISH},
    } | changes
    return json.dumps({name: value for name, value in event.items() if value is not None})


@asynccontextmanager
async def sixty_jobs(stack: Stack) -> AsyncIterator[Customer]:
    """Let a block do what it will once sixty jobs have begun; all of them complete all the same, and once."""
    async with aiohttp.ClientSession(stack.api_url) as http:
        customer = Customer(stack, http)
        async with JobRequests.connect(stack.settings.broker_url) as requests:
            wish = "Something outdoors for 6 people, variant {}"
            jobs = await requests.submit_many(
                Request(organization_id=BIRCH.id, team_id=BIRCH.team.id, requirements=wish.format(number))
                for number in range(60)
            )

        async def begun() -> bool:
            return any([(await customer.job(job))["status"] != "pending" for job in jobs])

        await wait_for(begun, what="the first job to begin")
        yield customer
        ended = [await customer.ended_job(job) for job in jobs]
        assert {job["status"] for job in ended} == {"completed"}
    await assert_consistent(stack.settings.database_url, deadline_s=30)
