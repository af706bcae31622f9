"""The quota, failures and schedule workers as operators start them, on real servers."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis

from infra.clock import SystemClock
from infra.postgres import Database
from streams.delivery.deliveries import Record
from streams.delivery.scheduled import ScheduledRetries
from streams.jobs.events import JobAccepted, JobEvent, JobRejected, parse_event
from streams.jobs.stages import QUOTA, topic_after
from tests.conftest import Pool
from tests.facts import decide
from tests.integration.quota_scene import add_organization, completed, request
from tests.stream_entries import entries_of
from tests.waiting import wait_for

BUDGET_REACHED = Path(__file__).parents[1] / "recorded" / "teamfit.budget.reached.v1.json"
_QUOTA, _FAILURES, _SCHEDULE = "consumers.quota", "consumers.failures", "producers.schedule"


@pytest.fixture
async def workers(database_url: str, redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """One process of each app that the test names, stopped as an orchestrator would."""
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "faust", "-A", app, "worker", "-l", "warn", "--without-web"),
            env={**os.environ, "DATABASE_URL": database_url, "BROKER_URL": redis_url},
        )
        for app in request.param
    ]
    yield
    try:
        for process in processes:
            assert process.returncode is None, "a worker died"
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            for process in processes:
                await process.wait()
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def write(redis_url: str, topic: str, *events: JobEvent | bytes) -> None:
    """Write entries as any service would."""
    async with Redis.from_url(redis_url) as client:
        for event in events:
            raw = event if isinstance(event, bytes) else event.encode()
            await client.execute_command("XADD", topic, "*", "key", "k", "event", raw)


async def read(redis_url: str, topic: str) -> list[JobEvent]:
    """The events of a topic."""
    return [parse_event(fields[b"event"]) for fields in await entries_of(redis_url, topic)]


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("workers", [(_QUOTA, _FAILURES, _SCHEDULE)], indirect=True, ids=["started"])
async def test_requests_are_decided_and_completions_charged(database: Pool, redis_url: str) -> None:
    """What is written to a stream is admitted or refused, settled, and survives bad entries in between."""
    await add_organization(database, monthly_quota=1)
    accepted, refused = request(), request()
    await write(redis_url, "job-requests", b"{", completed(accepted), accepted, refused)

    async def decided() -> bool:
        admitted, rejected = await read(redis_url, topic_after(QUOTA)), await read(redis_url, "job-events")
        return [(type(event), event.job_id) for event in [*admitted, *rejected]] == [
            (JobAccepted, accepted.job_id),
            (JobRejected, refused.job_id),
        ]

    await wait_for(decided, deadline_s=30, what="one request to be accepted and one refused")

    await decide(database, completed(accepted))
    await write(redis_url, "job-events", BUDGET_REACHED.read_bytes(), accepted, completed(accepted))
    await wait_for(
        lambda: database.fetchval("SELECT charged = 1 AND reserved = 0 FROM quota_usage"), what="the unit to be charged"
    )

    async def kept() -> bool:
        rows = await database.fetch("SELECT topic, stage, error_type, error_message FROM failed_events")
        assert {(row["topic"], row["stage"], row["error_type"]) for row in rows} == {
            ("job-requests", "quota", "InvalidEvent"),
            ("job-events", "quota", "InvalidEvent"),
        }
        return len(rows) == 3 and sum("type: 'teamfit.job." in row["error_message"] for row in rows) == 2

    await wait_for(kept, what="the bad entries to be in failed_events")


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("workers", [(_QUOTA,)], indirect=True, ids=["started"])
async def test_a_settlement_that_fails_for_a_bug_is_a_dead_letter(database: Pool, redis_url: str) -> None:
    """It is found in `failed_events` with its bytes and traceback; the reservation stays until it is replayed."""
    await add_organization(database)
    bad, good = request(), request()
    await write(redis_url, "job-requests", bad, good)
    await wait_for(
        lambda: database.fetchval("SELECT reserved = 2 FROM quota_usage"), deadline_s=30, what="the reservations"
    )
    await database.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'a bug'; END $$;"
        "CREATE TRIGGER bug BEFORE UPDATE ON quota_ledger FOR EACH ROW "
        f"WHEN (OLD.job_id = '{bad.job_id}') EXECUTE FUNCTION refuse();"
    )
    await decide(database, completed(bad), completed(good))
    await write(redis_url, "job-events", completed(bad), completed(good))
    row = await wait_for(lambda: database.fetchrow("SELECT * FROM failed_events"), what="the dead letter")
    assert row is not None
    assert (row["job_id"], row["stage"], row["topic"]) == (bad.job_id, "quota", "job-events")
    assert row["event"] == completed(bad).encode()
    assert "a bug" in row["traceback"]
    await wait_for(
        lambda: database.fetchval("SELECT charged = 1 AND reserved = 1 FROM quota_usage"), what="its neighbour's charge"
    )


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("workers", [(_QUOTA, _SCHEDULE)], indirect=True, ids=["started"])
async def test_a_scheduled_event_is_published_when_it_is_due(database: Pool, database_url: str, redis_url: str) -> None:
    """A retry kept in the database reaches its topic, and its stage, without anybody's help."""
    await add_organization(database)
    asked = request()
    postgres = Database(database_url, size=1)
    again = Record("job-requests", asked.key, asked.encode(), {"attempt": b"2", "for-group": b"quota"})
    await ScheduledRetries(postgres, SystemClock()).schedule(again, timedelta(seconds=0.5), reason="test")
    await postgres.close()

    async def admitted() -> bool:
        return [event.job_id for event in await read(redis_url, topic_after(QUOTA))] == [asked.job_id]

    await wait_for(admitted, deadline_s=30, what="the scheduled request to be accepted")
    assert await database.fetchval("SELECT count(*) FROM scheduled_events") == 0
