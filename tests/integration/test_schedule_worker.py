"""A schedule worker as a process: work that fails is left for its next time, and the rest goes on."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from redis.asyncio import Redis

from infra.errors import Refused
from infra.local.processes import free_port
from infra.operations.schedule import periodic_tasks, run_task
from infra.postgres import Database
from producers.schedule.periodic import PERIODIC
from tests.conftest import Pool
from tests.integration.pipeline_world import asked, record_intake
from tests.waiting import wait_for

_ROOT = str(Path(__file__).parents[2])
# What the worker cannot know of, such as a bug in a statement or a right that was taken away.
_BREAK = """
CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken'; END $$;
CREATE TRIGGER broken BEFORE {statement} ON {table} EXECUTE FUNCTION broken();
"""
_MEND = "DROP FUNCTION broken CASCADE"


@asynccontextmanager
async def schedule_worker(redis_url: str, database_url: str, log: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Start one as an operator would, and see that it ends in good order; yields its pages."""
    port = free_port()
    environment = {
        **os.environ,
        "BROKER_URL": redis_url,
        "DATABASE_URL": database_url,
        "TEAMFIT_WORKER_PORT": str(port),
        "TEAMFIT_STALL_THRESHOLD_S": "1",
    }
    command = [sys.executable, "-m", "infra.cli", "worker", "schedule"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, cwd=_ROOT, stdout=output, stderr=output)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as pages:
            yield pages
            assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        code = process.wait(30)
    assert code == 0


async def says(pages: aiohttp.ClientSession, *problems: str) -> None:
    """Wait until /readyz names these problems and no others."""

    async def said() -> bool:
        try:
            async with pages.get("/readyz") as answer:
                assert (await answer.json())["problems"] == list(problems)
                return True
        except aiohttp.ClientError:
            return False

    await wait_for(said, deadline_s=30, what=f"/readyz to name {problems}")


async def schedule_one(database: Pool) -> None:
    """Have an event be due."""
    event = asked()
    await database.execute(
        "INSERT INTO scheduled_events (id, topic, key, event, due_at, reason)"
        " VALUES (gen_random_uuid(), 'job-requests', $1, $2, now(), 'test')",
        *(event.key, event.encode()),
    )


async def leave_one_behind(database: Pool) -> None:
    """Have an accepted job stand still."""
    await record_intake(database, asked())
    await database.execute("UPDATE job_requests SET accepted_at = now() - interval '5 minutes'")


@pytest.mark.parametrize(
    ("work", "statement", "table"),
    [("reconcile", "INSERT", "reemissions"), ("schedule", "DELETE", "scheduled_events")],
)
async def test_work_that_fails_ends_no_worker_and_no_other_work(
    redis_url: str, database_url: str, database: Pool, tmp_path: Path, work: str, statement: str, table: str
) -> None:
    """It is said on /readyz and in the log once, tried again at its next time, and done when it can be."""
    fails, goes_on = leave_one_behind, schedule_one
    if work == "schedule":
        fails, goes_on = goes_on, fails
    log = tmp_path / "worker.log"
    async with schedule_worker(redis_url, database_url, log) as pages, Redis.from_url(redis_url) as redis:
        await says(pages)
        await database.execute(_BREAK.format(statement=statement, table=table))
        await fails(database)
        await says(pages, f"{work} fails: RaiseError")
        before = await redis.xlen("job-requests")
        await goes_on(database)

        async def sent() -> bool:
            return await redis.xlen("job-requests") > before

        await wait_for(sent, what="the other work to go on")
        await database.execute(_MEND)
        await says(pages)
        left = f"SELECT count(*) {'= 1' if work == 'reconcile' else '= 0'} FROM {table}"
        await wait_for(lambda: database.fetchval(left), what="what was left to be done")
    assert log.read_text().count("schedule.failed") == 1


async def test_a_month_that_cannot_be_opened_ends_no_worker(
    redis_url: str, database_url: str, database: Pool, tmp_path: Path
) -> None:
    """What a worker does at its start may fail, and it publishes what is due all the same."""
    await database.execute(_BREAK.format(statement="INSERT", table="quota_usage"))
    async with schedule_worker(redis_url, database_url, tmp_path / "worker.log") as pages:
        await says(pages, "periods.open_current fails: RaiseError")
        await schedule_one(database)
        await wait_for(
            lambda: database.fetchval("SELECT count(*) = 0 FROM scheduled_events"), what="the event to be published"
        )


async def test_every_periodic_task_runs_when_an_operator_says_so(
    redis_url: str, database_url: str, database: Pool, postgres: Database, tmp_path: Path
) -> None:
    """The worker has each that the list has, and each ends without an error on a fresh database."""

    async def taken(name: str) -> bool:
        try:
            await run_task(postgres, name)
        except Refused:
            return False  # it runs by itself just now
        return True

    async with schedule_worker(redis_url, database_url, tmp_path / "worker.log") as pages:
        await says(pages)
        for task in PERIODIC:
            await wait_for(partial(taken, task.name), what=f"{task.name} to be asked for")

        async def all_ran() -> bool:
            seen = await periodic_tasks(postgres)
            return [(one.name, one.state, one.error) for one in seen] == [(one.name, "done", None) for one in PERIODIC]

        await wait_for(all_ran, deadline_s=60, what="every task to have run")
    assert await database.fetchval("SELECT count(*) FROM job_counts_progress") == 1
