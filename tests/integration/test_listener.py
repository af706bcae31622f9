"""Who waits for a job hears of it from the projection's transaction, and looks by itself where it hears nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from consumers.projection.changes import GOES_ON, Changes, Listener
from consumers.projection.handlers import Projection
from infra.postgres import Database
from streams.jobs.events import JobEvent, JobId
from streams.jobs.outcomes import decide_outcome
from tests.conftest import Pool
from tests.facts import JOB, cancelled, completed, failed, rejected, requested, started
from tests.waiting import wait_for


@pytest.fixture
async def opened(database_url: str) -> AsyncIterator[Database]:
    """The database of an API process."""
    opened = Database(database_url, size=2)
    yield opened
    await opened.close()


@asynccontextmanager
async def waiting(changes: Changes) -> AsyncIterator[asyncio.Event]:
    """Wait for the job, with all that was known before it told."""
    with changes.of(JOB) as changed:
        await wait_for(lambda: changes._listener.is_up, what="the listener")
        # What was missed before it listened causes one look more.
        await wait_for(lambda: not changes._look_now.is_set(), what="the looks to end")
        changed.clear()
        yield changed


async def test_a_change_is_heard_of_without_a_look(opened: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look by itself is an hour away, and the change is told all the same."""
    monkeypatch.setattr("consumers.projection.changes._SELDOM_S", 3_600.0)
    projection = Projection(opened)
    await projection.project([requested()])
    async with waiting(Changes(opened)) as changed:
        await projection.project([started()])
        await wait_for(changed.is_set, what="the change to be heard of")


@pytest.mark.parametrize("end", [completed(), failed(), rejected(), cancelled()], ids=lambda one: one.type)
async def test_each_way_to_end_is_heard_of_without_a_look(
    opened: Database, monkeypatch: pytest.MonkeyPatch, end: JobEvent
) -> None:
    """Whoever waits for the end alone is woken by it, however the run ends."""
    monkeypatch.setattr("consumers.projection.changes._SELDOM_S", 3_600.0)
    projection = Projection(opened)
    await projection.project([requested(), started()])
    async with waiting(Changes(opened)) as changed:
        await projection.project([end])
        await wait_for(changed.is_set, what="the end to be heard of")


async def test_what_was_told_before_it_listened_is_looked_for(
    opened: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first look and `LISTEN` a change is told to no one; so beginning to listen causes a look."""
    monkeypatch.setattr("consumers.projection.changes._SELDOM_S", 3_600.0)
    monkeypatch.setattr("consumers.projection.changes._OFTEN_S", 3_600.0)
    may_connect, connect_apart = asyncio.Event(), opened.connect_apart

    async def connect_later() -> Any:
        await may_connect.wait()
        return await connect_apart()

    monkeypatch.setattr(opened, "connect_apart", connect_later)
    projection, changes = Projection(opened), Changes(opened)
    await projection.project([requested()])
    with changes.of(JOB) as changed:
        await wait_for(changed.is_set, what="the first look")
        changed.clear()
        await projection.project([started()])
        assert not changes._listener.is_up
        assert not changed.is_set()
        may_connect.set()
        await wait_for(changed.is_set, what="the change")


async def test_two_workers_that_project_at_once_are_both_heard(
    opened: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their transactions commit in either order, and each wakes who waits for its job."""
    monkeypatch.setattr("consumers.projection.changes._SELDOM_S", 3_600.0)
    jobs = [JobId(uuid4()) for _ in range(20)]
    changes, workers = Changes(opened), [Database(database_url, size=1) for _ in range(2)]
    try:
        await Projection(opened).project([requested(job=job) for job in [JOB, *jobs]])
        async with waiting(changes):
            with ExitStack() as stack:
                told = [stack.enter_context(changes.of(job, only_end=True)) for job in jobs]
                await asyncio.gather(
                    *(Projection(workers[at % 2]).project([completed(job=job)]) for at, job in enumerate(jobs))
                )
                await wait_for(lambda: all(one.is_set() for one in told), what="all ends")
    finally:
        for worker in workers:
            await worker.close()


async def test_a_cancellation_that_no_worker_projects_is_seen(
    opened: Database, database: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is decided in Postgres before it is told, and while no projection runs nothing tells of it: a look sees it."""
    monkeypatch.setattr("consumers.projection.changes._SELDOM_S", 0.05)
    await Projection(opened).project([requested(), started()])
    async with waiting(Changes(opened)) as changed:
        async with database.acquire() as connection, connection.transaction():
            await decide_outcome(connection, JOB, 1, "cancelled")
        await wait_for(changed.is_set, what="the cancellation")


async def test_a_connection_that_breaks_is_made_anew(
    opened: Database, database: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing is heard, the looks are frequent; afterwards it is heard again."""
    monkeypatch.setattr("consumers.projection.changes._AGAIN_S", 0.05)
    projection = Projection(opened)
    await projection.project([requested()])
    async with waiting(changes := Changes(opened)) as changed:
        assert await database.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN %'"
        )
        await wait_for(lambda: not changes._listener.is_up, what="the break to be noticed")
        await wait_for(lambda: changes._listener.is_up, what="the next connection")
        await projection.project([started()])
        await wait_for(changed.is_set, what="the change")


async def test_a_batch_tells_of_more_jobs_than_a_payload_holds(opened: Database) -> None:
    """Postgres refuses a payload of 8,000 bytes; each job of a large batch is told of."""
    heard: set[str] = set()
    listener = Listener(opened, heard.update)
    listening = asyncio.create_task(listener.run())
    await wait_for(lambda: listener.is_up, what="the listener")
    jobs = [uuid4() for _ in range(450)]
    await Projection(opened).project([requested(job=JobId(job)) for job in jobs])
    await wait_for(lambda: {f"{job}{GOES_ON}" for job in jobs} <= heard, what="all jobs")
    listening.cancel()
    await asyncio.wait([listening])
