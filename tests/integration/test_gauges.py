"""The gauges on /metrics, of the API and of a worker, on real servers that come and go."""

import os
import signal
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from infra.local.servers import Postgres, start_postgres
from infra.migrations import upgrade
from tests.api_server import api_settings, serving
from tests.conftest import Pool, run_apart
from tests.waiting import wait_for

_JOB = """
INSERT INTO customization_jobs (job_id, organization_id, status, run, created_at, updated_at)
VALUES ($1, 'acme', $2, $3, $4, $5)
"""
_ENDPOINTS = """
WITH made AS (
    INSERT INTO webhook_endpoints
        (id, organization_id, url, types, secret, failing_since, disabled_at, disabled_because)
    VALUES (gen_random_uuid(), 'acme', 'https://a/1', '{}', 's', NULL, NULL, NULL),
        (gen_random_uuid(), 'acme', 'https://a/2', '{}', 's', now(), NULL, NULL),
        (gen_random_uuid(), 'acme', 'https://a/3', '{}', 's', now(), now(), 'gone')
    RETURNING id, url
)
INSERT INTO webhook_deliveries (endpoint_id, event_id, type, body, due_at)
SELECT id, late::text, 'job.failed', '{}', now() - late
FROM made CROSS JOIN unnest(CASE WHEN url = 'https://a/1'
    THEN ARRAY[interval '1 hour', interval '-1 hour'] ELSE ARRAY[interval '1 day'] END) AS late
"""
_FAILED = """
INSERT INTO failed_events (
    id, topic, stage, reason, error_type, error_message, attempts, first_failed_at, last_failed_at,
    discarded_occurrences
)
VALUES (gen_random_uuid(), 'job-accepted', 'generation', 'given_up', 'E', 'e', 1, now(), now(), $1)
"""
_DUE = """
INSERT INTO scheduled_events (id, topic, key, due_at, reason)
VALUES (gen_random_uuid(), $1, convert_to($2, 'UTF8'), $3, 'retry')
"""


def number(gauges: Mapping[Any, float], name: str, **labels: str) -> float | None:
    """The value of a gauge, or None if it is absent."""
    return gauges.get((name, frozenset(labels.items())))


async def scrape(session: aiohttp.ClientSession) -> dict[Any, float]:
    """Everything on /metrics, by name and labels."""
    async with session.get("/metrics") as answer:
        assert answer.status == 200
        text = await answer.text()
    families = text_string_to_metric_families(text)
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """The API on clean servers."""
    async with serving(api_settings(database_url=database_url, broker_url=redis_url)) as session:
        yield session


async def test_an_idle_fleet_has_zeros(api: aiohttp.ClientSession) -> None:
    """What is zero is told as zero, so that an alert can tell it from what is unknown."""
    gauges = await scrape(api)
    for source in ("postgres", "broker"):
        assert number(gauges, "teamfit_source_up", source=source) == 1
    assert number(gauges, "teamfit_failed_events_open", stage="generation") == 0
    assert number(gauges, "teamfit_oldest_live_job_age_seconds", status="pending") == 0
    assert number(gauges, "teamfit_scheduled_events_due", topic="job-accepted") == 0
    for name in ("lag_entries", "pending_entries", "oldest_pending_age_seconds", "consumers"):
        assert number(gauges, f"teamfit_group_{name}", topic="job-requests", group="quota") == 0
    assert number(gauges, "teamfit_topic_entries", topic="job-events") == 0
    for state in ("working", "failing", "disabled"):
        assert number(gauges, "teamfit_webhook_endpoints", state=state) == 0


async def test_what_waits_in_the_streams_is_told(api: aiohttp.ClientSession, redis_url: str) -> None:
    """By topic and consumer group, groups that never started included."""
    async with Redis.from_url(redis_url) as redis:
        await redis.xgroup_create("job-requests", "quota", "0", mkstream=True)
        for _ in range(3):
            await redis.xadd("job-requests", {"event": "x"})
        await redis.xreadgroup("quota", "w1", {"job-requests": ">"}, count=1)
    gauges = await scrape(api)
    assert number(gauges, "teamfit_group_lag_entries", topic="job-requests", group="quota") == 2
    assert number(gauges, "teamfit_group_pending_entries", topic="job-requests", group="quota") == 1
    assert number(gauges, "teamfit_group_lag_entries", topic="job-requests", group="projection") == 3
    assert number(gauges, "teamfit_group_consumers", topic="job-requests", group="projection") == 0
    assert number(gauges, "teamfit_topic_entries", topic="job-requests") == 3


async def test_what_stands_in_postgres_is_told(api: aiohttp.ClientSession, database: Pool) -> None:
    """Open failed events, the gate, the oldest live jobs, what is overdue; not what is settled, or meant to wait."""
    now = datetime.now(UTC)
    hour, day, year = (now - timedelta(hours=1), now - timedelta(days=1), now - timedelta(days=365))
    ids = [f"00000000-0000-4000-8000-00000000000{digit}" for digit in range(5)]
    await database.execute(_JOB, ids[0], "pending", 1, day, hour)
    await database.execute(_JOB, ids[1], "pending", 1, day, day)
    await database.execute(_DUE, "job-requests", ids[1], now + timedelta(days=1))
    await database.execute(_JOB, ids[2], "processing", 2, year, hour)
    await database.execute(_JOB, ids[3], "completed", 1, year, year)
    for discarded in (None, None, 1):
        await database.execute(_FAILED, discarded)
    await database.execute("INSERT INTO llm_gate VALUES ('https://llm', $1, 'llm_rate_limited')", now)
    await database.execute(_DUE, "job-accepted", ids[4], hour)
    await database.execute(_ENDPOINTS)
    gauges = await scrape(api)
    assert number(gauges, "teamfit_webhook_endpoints", state="disabled") == 1
    for state, late_s in (("working", 3_600), ("failing", 86_400), ("disabled", 0)):
        seen = number(gauges, "teamfit_webhooks_overdue_seconds", state=state)
        assert seen == pytest.approx(late_s, abs=300), state
    for status in ("pending", "processing"):
        age_s = number(gauges, "teamfit_oldest_live_job_age_seconds", status=status)
        assert age_s == pytest.approx(3_600, abs=300), status
    assert number(gauges, "teamfit_failed_events_open", stage="generation") == 2
    until = number(gauges, "teamfit_llm_gate_closed_until_timestamp_seconds", endpoint="https://llm")
    assert until == pytest.approx(now.timestamp(), abs=0.01)
    assert number(gauges, "teamfit_scheduled_events_due", topic="job-accepted") == 1
    assert number(gauges, "teamfit_scheduled_events_due", topic="job-requests") == 0
    assert number(gauges, "teamfit_scheduled_events_overdue_seconds", topic="job-accepted") == pytest.approx(
        3_600, abs=300
    )


@pytest.fixture
def own_postgres() -> Any:
    """A database that a test may stall."""
    with start_postgres(durable=False, in_memory=True) as server:
        run_apart(upgrade(server.url))
        yield server


async def test_a_stalled_postgres_neither_fails_nor_hangs_the_page(own_postgres: Postgres, redis_url: str) -> None:
    """Its gauges are absent and its source is down, the broker's are told; once it goes on, so do its gauges."""
    async with serving(api_settings(database_url=own_postgres.url, broker_url=redis_url)) as api:
        assert number(await scrape(api), "teamfit_source_up", source="postgres") == 1
        processes = _of(own_postgres)
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        try:

            async def unknown() -> dict[Any, float] | None:
                gauges = await scrape(api)
                return gauges if number(gauges, "teamfit_source_up", source="postgres") == 0 else None

            gauges = await wait_for(unknown, deadline_s=20, what="Postgres to be told as away")
        finally:
            for pid in processes:
                os.kill(pid, signal.SIGCONT)
        assert gauges is not None
        assert number(gauges, "teamfit_failed_events_open", stage="quota") is None
        assert number(gauges, "teamfit_source_up", source="broker") == 1

        async def back() -> bool:
            return number(await scrape(api), "teamfit_failed_events_open", stage="quota") == 0

        await wait_for(back, deadline_s=20, what="the gauges to come back")


async def test_without_any_server_the_page_is_served() -> None:
    """What the process itself counts is there all the same."""
    settings = api_settings(database_url="postgresql://127.0.0.1:1/none")
    async with serving(settings) as api:
        gauges = await scrape(api)
    for source in ("postgres", "broker"):
        assert number(gauges, "teamfit_source_up", source=source) == 0
    assert not [name for name, _ in gauges if name.startswith("teamfit_group_")]
    assert [name for name, _ in gauges if name.startswith("process_")]


def _of(server: Postgres) -> list[int]:
    """The server's processes, one for each connection too."""
    return [server.pid, *(child.pid for child in psutil.Process(server.pid).children(recursive=True))]
