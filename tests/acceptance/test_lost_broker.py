"""A broker that forgets everything, and jobs that are withdrawn, in a pipeline of real processes."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import aiohttp
import asyncpg
import pytest
from redis.asyncio import Redis

from infra.local.organizations import BIRCH
from infra.local.stack import Stack
from infra.settings import Settings
from producers.client import JobRequests, Request
from streams.jobs.events import JobId
from tests.acceptance.customer import Customer, assert_three_activities
from tests.acceptance.running import running
from tests.conftest import Pool
from tests.verified import assert_consistent
from tests.waiting import wait_for

_JOBS = 120


@pytest.fixture(scope="module")
def forgetful(_own_surroundings: None) -> Iterator[Stack]:
    """A pipeline whose reconciler is quick to act, and whose work lasts long enough to be interrupted."""
    stack = Stack(
        Settings(_env_file=None, generation_concurrency=10, retry_base_s=0.2, stall_threshold_s=1),
        llm_latency_s=0.3,
        broker_parameters="lease=2s",
        durable=False,
    )
    with running(stack):
        yield stack


@pytest.fixture
async def visitor(forgetful: Stack) -> AsyncIterator[Customer]:
    """A customer of that pipeline."""
    async with aiohttp.ClientSession(forgetful.api_url) as http:
        yield Customer(forgetful, http)


@pytest.fixture
async def ledger(forgetful: Stack) -> AsyncIterator[Pool]:
    """Its database."""
    async with asyncpg.create_pool(forgetful.settings.database_url, min_size=1, max_size=3) as pool:
        yield pool


async def counted(pool: Pool, job_ids: Sequence[UUID]) -> dict[str, int]:
    """How many of these jobs the read model shows in each status."""
    rows = await pool.fetch(
        "SELECT status, count(*) FROM customization_jobs WHERE job_id = ANY($1) GROUP BY status", list(job_ids)
    )
    return {row[0]: row[1] for row in rows}


async def test_flushing_the_broker_in_mid_flight_loses_no_job(
    forgetful: Stack, visitor: Customer, ledger: Pool
) -> None:
    """`FLUSHALL` twice, while jobs by all ways in are under way: each completes once, and is charged once."""
    async with JobRequests.connect(forgetful.settings.broker_url) as requests:
        job_ids: list[UUID] = [
            *await requests.submit_many(
                Request(organization_id=BIRCH.id, team_id=BIRCH.team.id, requirements=f"Outdoors, variant {number}")
                for number in range(_JOBS)
            )
        ]

    async def archived() -> bool:
        return sum((await counted(ledger, job_ids)).values()) == _JOBS

    # From here on they are safe; those that came over HTTP are safe from their 202 on.
    await wait_for(archived, what="the stream's requests to be archived")
    for _ in range(2):
        accepted = await asyncio.gather(*(visitor.post() for _ in range(20)))
        assert {status for status, _ in accepted} == {202}
        job_ids += [UUID(document["job_id"]) for _, document in accepted]
        assert (await counted(ledger, job_ids)).get("completed", 0) < len(job_ids)
        async with Redis.from_url(forgetful.broker_address) as redis:
            await redis.flushall()

    async def all_completed() -> bool:
        assert await counted(ledger, job_ids) == {"completed": len(job_ids)}
        return True

    await wait_for(all_completed, deadline_s=90, what="every job to complete")
    assert await ledger.fetchval("SELECT count(*) FROM reemissions") > 0
    assert_three_activities(await visitor.job(job_ids[-1]))
    await assert_consistent(forgetful.settings.database_url, deadline_s=30)


async def test_flushing_the_broker_loses_no_dead_letter(forgetful: Stack, visitor: Customer, ledger: Pool) -> None:
    """The failures worker is down and the broker forgets all: the letter of a failed job is there, once."""
    await asyncio.to_thread(forgetful.kill, "failures")
    control = f"{forgetful.settings.openai_base_url}".removesuffix("/v1") + "/control"
    async with visitor.http.put(control, json={"mode": "refusal", "count": 1}) as told:
        assert told.status == 200
    _, document = await visitor.post()
    assert (await visitor.ended_job(document["job_id"]))["status"] == "failed"

    async def found() -> bool:
        kept = await ledger.fetch("SELECT stage FROM failed_events WHERE job_id = $1", document["job_id"])
        assert [row["stage"] for row in kept] == ["generation"]
        return True

    async with Redis.from_url(forgetful.broker_address) as redis:
        await redis.flushall()
    assert await found()
    await asyncio.to_thread(forgetful.start, "failures")
    await wait_for(found, what="the letter to be kept once")
    await assert_consistent(forgetful.settings.database_url, deadline_s=30)


async def test_withdrawn_and_delayed_jobs(forgetful: Stack, visitor: Customer, ledger: Pool) -> None:
    """A job that is cancelled while it runs ends as cancelled, one that waits for its time begins then."""
    job_ids = []
    for _ in range(30):
        _, document = await visitor.post()
        job_ids.append(document["job_id"])
    later = datetime.now(UTC) + timedelta(seconds=2)
    _, delayed = await visitor.post(run_at=later.isoformat())
    assert (await visitor.job(delayed["job_id"]))["status"] == "pending"

    async def cancel(job_id: str) -> int:
        headers = {"Authorization": f"Bearer {forgetful.token(BIRCH.id)}"}
        async with visitor.http.post(f"/api/jobs/{job_id}/cancel", headers=headers) as answer:
            return answer.status

    statuses = await asyncio.gather(*(cancel(job_id) for job_id in job_ids[:15]))
    async with JobRequests.connect(forgetful.settings.broker_url) as requests:
        for job_id in job_ids[15:]:
            await requests.cancel(JobId(UUID(job_id)), organization_id=BIRCH.id)

    async def all_ended() -> bool:
        found = await counted(ledger, [UUID(job_id) for job_id in job_ids])
        assert sum(found.values()) == len(job_ids)
        assert set(found) <= {"completed", "cancelled"}
        return True

    await wait_for(all_ended, deadline_s=60, what="every job to end")
    for job_id, status in zip(job_ids[:15], statuses, strict=True):
        job = await visitor.job(job_id)
        assert (status, job["status"]) in {(200, "cancelled"), (409, "completed")}
    job = await visitor.ended_job(delayed["job_id"])
    assert_three_activities(job)
    assert datetime.fromisoformat(job["started_at"]) >= later
    await assert_consistent(forgetful.settings.database_url, deadline_s=30)
