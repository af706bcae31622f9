"""The projection as operators start it: a Faust worker, fed from real streams."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from streams.jobs.events import JobEvent, JobId, fact_id, kind_of
from tests.api_server import api_settings, bearer, serving
from tests.conftest import Pool
from tests.facts import completed, decide, enter, requested, started
from tests.stream_entries import entries_of
from tests.waiting import wait_for

BUDGET_REACHED = Path(__file__).parents[1] / "recorded" / "teamfit.budget.reached.v1.json"


@pytest.fixture
async def worker(database_url: str, redis_url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker process on the test's own servers, stopped as an orchestrator would."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "faust", "-A", "consumers.projection", "worker", "-l", "warn", "--without-web"),
        env={**os.environ, "DATABASE_URL": database_url, "BROKER_URL": redis_url},
    )
    yield process
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), 20)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise


async def write(redis_url: str, topic: str, *events: JobEvent | bytes) -> None:
    """Write entries as any service would."""
    async with Redis.from_url(redis_url) as client:
        for event in events:
            raw = event if isinstance(event, bytes) else event.encode()
            await client.execute_command("XADD", topic, "*", "key", "k", "event", raw)


async def test_events_of_both_topics_become_a_status(
    worker: asyncio.subprocess.Process, database_url: str, database: Pool, redis_url: str
) -> None:
    """A request and the facts that follow are read from their streams, archived, and seen by the customer who polls.

    What is no fact about a job is ignored.
    """
    job = JobId(uuid4())
    facts = [
        one.model_copy(update={"id": fact_id(job, 1, kind_of(one))})
        for one in (completed(3, job=job), started(1, job=job))
    ]
    await enter(database, *facts)
    await decide(database, facts[0])
    await write(redis_url, "job-events", BUDGET_REACHED.read_bytes(), *facts)
    await write(redis_url, "job-requests", requested(0, job=job))
    async with serving(api_settings(database_url=database_url)) as api:

        async def finished() -> bool:
            async with api.get(f"/api/jobs/{job}", headers=bearer()) as answer:
                if answer.status == 404:
                    return False
                seen = await answer.json()
            return bool(seen["status"] == "completed" and seen["team_id"] == "t1" and seen["started_at"])

        await wait_for(finished, deadline_s=30, what="the job to be completed")
    assert await database.fetchval("SELECT count(*) FROM job_events") == 3
    assert await database.fetchval("SELECT count(*) FROM failed_events") == 0


async def test_what_is_no_event_does_not_stop_the_projection(
    worker: asyncio.subprocess.Process, database: Pool, redis_url: str
) -> None:
    """Bad bytes go to the dead letters with a message that names the field, and the next event is projected."""
    bad = requested(0).encode()
    await write(
        redis_url,
        "job-requests",
        b"{",
        bad.replace(b"job.requested.v1", b"job.dreamt.v1"),
        bad.replace(b'"team_id"', b'"team"'),
        requested(0).model_copy(update={"id": "nul\0"}).encode(),
        requested(0),
    )
    await wait_for(
        lambda: database.fetchval("SELECT count(*) FROM customization_jobs"), deadline_s=30, what="the good event"
    )

    async def dead_letters() -> list[dict[bytes, bytes]]:
        found = await entries_of(redis_url, "dead-letters")
        assert len(found) == 4
        return found

    messages = {fields[b"h:dead-letter-error"].decode() for fields in await wait_for(dead_letters, what="dead letters")}
    assert any("data.team_id: " in message for message in messages)
    assert any(message.startswith("id: ") and "NUL" in message for message in messages)
    assert await database.fetchval("SELECT count(*) FROM job_events") == 1
