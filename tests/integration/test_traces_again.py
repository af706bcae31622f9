"""What is done again stays in its trace: a lost run that is sent once more, and a read model that is folded anew."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import aiohttp
from redis.asyncio import Redis

from infra.bench.otlp_collector import Collector, Seen, collecting
from infra.local.stack import ALL, API, Stack
from infra.postgres import Database
from infra.settings import Settings
from streams.jobs.events import JobId
from tests.acceptance.customer import Customer
from tests.acceptance.running import running
from tests.facts import completed, requested, started
from tests.integration.pipeline_scene import pipeline_on
from tests.waiting import wait_for

_CALLER = "00f067aa0ba902b7"
_SERVER = 2


def impatient(**given: Any) -> Settings:
    """Return settings with which a run that stands still is sent again at once."""
    return Settings(
        _env_file=None,
        generation_concurrency=5,
        generation_timeout_s=2,
        stage_timeout_s=2,
        retry_cap_s=0.5,
        retry_base_s=0.2,
        stall_threshold_s=3,
        trace_share=0,
        trace_statements=1,
        **given,
    )


async def test_a_lost_run_that_is_sent_again_stays_in_its_trace(database_url: str, redis_url: str) -> None:
    """The broker loses the request, the schedule worker sends it again: one root, and both sendings are below it."""
    with collecting() as collector:
        settings = impatient(database_url=database_url, broker_url=redis_url, otlp_endpoint=collector.url)
        with running(Stack(settings, llm_latency_s=0.05, parts=(ALL, API))) as stack:

            async def flush() -> None:
                async with Redis.from_url(stack.broker_address) as redis:
                    await redis.flushdb()

            again = await through_a_loss(stack, collector, flush)
    assert len(again) == 1


async def through_a_loss(stack: Stack, collector: Collector, lose: Callable[[], Awaitable[None]]) -> list[Seen]:
    """The broker loses a request before any stage has read it. Return the spans that sent it again."""
    trace = uuid4().hex
    async with aiohttp.ClientSession(stack.api_url) as http:
        customer = Customer(stack, http)
        stack.kill(ALL)
        status, accepted = await customer.post(headers={"traceparent": f"00-{trace}-{_CALLER}-01"})
        assert status == 202
        await lose()
        await asyncio.to_thread(stack.start, ALL)
        job = await customer.ended_job(accepted["job_id"], deadline_s=90)
        assert job["status"] == "completed"

    def whole() -> list[Seen]:
        spans = collector.of(trace)
        known = {one.id for one in spans} | {_CALLER}
        assert [one.name for one in spans if one.parent not in known] == []
        assert "batch Projection.project" in [one.name for one in spans]
        return spans

    spans = await wait_for(whole, deadline_s=60, what="the whole trace")
    (root,) = [one for one in spans if one.parent == _CALLER]
    assert root.kind == _SERVER
    sent = [one for one in spans if one.name == "send job-requests"]
    assert {one.parent for one in sent} == {root.id}
    (lost,) = [one for one in sent if one.service == "teamfit-api"]
    again = [one for one in sent if one is not lost]
    heard = {one.parent for one in spans if one.name == "process job-requests"}
    assert heard
    assert heard <= {one.id for one in again}
    return again


# A process of its own: what is instrumented stays so.
_REBUILD = """
import asyncio
import sys
import asyncpg
from consumers.projection.rebuild import rebuild
from infra import tracing
from infra.settings import Settings

async def main():
    connection = await asyncpg.connect(sys.argv[1])
    print((await rebuild(connection, dry_run=False, progress=lambda *_: None)).repaired)
    await connection.close()

tracing.start(Settings(_env_file=None, otlp_endpoint=sys.argv[2], trace_share=1, trace_statements=1), "rebuild")
with tracing.processing("projection", "a-topic", "1-0", 1, object()):
    pass
asyncio.run(main())
"""


async def test_a_rebuild_makes_no_span_for_an_event(database_url: str) -> None:
    """Nor for a statement, though each event's trace is sampled, and the process traces all else."""
    parent = f"00-{uuid4().hex}-{_CALLER}-01"
    async with pipeline_on(database_url) as pipeline:
        jobs = [JobId(uuid4()) for _ in range(5)]
        for job in jobs:
            story = (requested(job=job), started(job=job), completed(job=job))
            await pipeline.project(*(event.model_copy(update={"traceparent": parent}) for event in story))
    database = Database(database_url, size=1)
    async with database.transaction() as connection:
        await connection.execute("DELETE FROM customization_jobs")
    await database.close()
    with collecting() as collector:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", _REBUILD, database_url, collector.url],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.stdout.strip() == str(len(jobs)), done.stderr
        assert [one.name for one in collector.spans] == ["process a-topic"]
