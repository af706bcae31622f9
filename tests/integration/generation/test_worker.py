"""The generation stage as operators start it: a Faust worker, fed from real streams."""

import asyncio
import signal
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from infra.clock import SystemClock
from streams.delivery.deliveries import Delivery
from streams.delivery.scheduled import take_due
from streams.delivery.seal import Seal
from streams.jobs.events import JobFailed, parse_event
from tests.facts import enter
from tests.integration.generation.conftest import Endpoint, Pool, StageUnderTest, WorkerStarter, accepted, write
from tests.stream_entries import entries_of
from tests.waiting import wait_for


@pytest.fixture
async def worker(start_worker: WorkerStarter) -> asyncio.subprocess.Process:
    """A worker process on the test's own servers."""
    return await start_worker()


def events_in(entries: Sequence[dict[bytes, bytes]]) -> list[Any]:
    """Parse the events of entries."""
    return [parse_event(entry[b"event"]) for entry in entries]


async def test_jobs_of_both_topics_are_generated(
    worker: asyncio.subprocess.Process, database: Pool, redis_url: str
) -> None:
    """An accepted job, urgent or not, gets three activities; JobStarted and then JobCompleted are on the stream."""
    plain, urgent = accepted(), accepted()
    await enter(database, plain, urgent)
    await write(redis_url, "job-accepted", b"{ no event", plain.encode())
    await write(redis_url, "job-accepted-priority", urgent.encode())

    async def told() -> bool:
        kinds = {(fact.job_id, fact.type) for fact in events_in(await entries_of(redis_url, "job-events"))}
        return len(kinds) == 4

    await wait_for(told, deadline_s=40, what="both jobs' facts")
    facts = events_in(await entries_of(redis_url, "job-events"))
    for event in (plain, urgent):
        types = [fact.type for fact in facts if fact.job_id == event.job_id]
        assert types == ["teamfit.job.started.v1", "teamfit.job.completed.v1"]
        count = await database.fetchval("SELECT count(*) FROM customized_activities WHERE job_id = $1", event.job_id)
        assert count == 3
    # What was no event at all did not stop the stage.
    await wait_for(lambda: entries_of(redis_url, "dead-letters"), what="the dead letter")


async def test_a_stopped_worker_exits_cleanly(
    worker: asyncio.subprocess.Process, database: Pool, redis_url: str
) -> None:
    """SIGTERM closes the connections of a worker that has called the LLM, and it exits with 0."""
    event = accepted()
    await enter(database, event)
    await write(redis_url, "job-accepted", event.encode())
    await wait_for(lambda: entries_of(redis_url, "job-events"), deadline_s=40, what="the job to start")
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(worker.wait(), 30) == 0


async def test_a_call_that_outlasts_the_stop_is_left_to_the_next_worker(
    worker: asyncio.subprocess.Process, redis_url: str, endpoint: Endpoint, database: Pool
) -> None:
    """A call under way is broken off when the drain is over: no failure of the job, no retry beside the redelivery."""
    await endpoint.tell("slow")
    event = accepted()
    await enter(database, event)
    await write(redis_url, "job-accepted", event.encode())
    await wait_for(endpoint.busy, deadline_s=40, what="the call")
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(worker.wait(), 30) == 0
    assert await database.fetchval("SELECT array_agg(state) FROM generation_attempts") == ["started"]
    assert await database.fetchval("SELECT count(*) FROM scheduled_events") == 0
    async with Redis.from_url(redis_url) as client:
        assert (await client.xpending("job-accepted", "generation"))["pending"] == 1


async def test_a_job_that_never_gets_a_valid_answer_fails_after_its_attempts(
    stage: StageUnderTest, endpoint: Endpoint, database: Pool
) -> None:
    """Three rubbish answers, each paid for and on record, then JobFailed with the reason, and the original is kept."""
    await endpoint.tell("rubbish")
    around = stage.wrapped()
    event = accepted()
    delivery = Delivery("job-accepted", event.key, event.encode())
    for _ in range(2):
        await around.process(delivery)
        async with stage.database.transaction() as connection:
            (again,) = await take_due(connection, now=SystemClock().now() + timedelta(minutes=1), limit=10)
        [again] = await Seal(stage.database).sealed([again])
        delivery = Delivery(again.topic, again.key, again.value, again.headers)
    await around.process(delivery)

    rows = await database.fetch("SELECT state, error_code, completion_tokens FROM generation_attempts ORDER BY attempt")
    assert [(row["state"], row["error_code"]) for row in rows] == [("failed", "llm_invalid_output")] * 3
    assert all(row["completion_tokens"] for row in rows)
    *_, failed, letter = stage.published.records
    fact = parse_event(failed.value)
    assert isinstance(fact, JobFailed)
    assert fact.data.code == "llm_invalid_output"
    assert (letter.topic, letter.value) == ("dead-letters", event.encode())
