"""Who waits for a job hears of it from the projection's transaction, and looks by itself where it hears nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from consumers.projection.changes import Changes
from consumers.projection.handlers import Projection
from consumers.projection.listener import Listener
from infra.postgres import Database
from streams.jobs.events import JobId
from tests.conftest import Pool
from tests.facts import JOB, requested, started
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
        await wait_for(changed.is_set, what="the first look")
        # What was missed before it listened causes one look more.
        await wait_for(lambda: not changes._news.is_set(), what="the looks to end")
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


async def test_a_connection_that_breaks_is_made_anew(
    opened: Database, database: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing is heard, the looks are frequent; afterwards it is heard again."""
    monkeypatch.setattr("consumers.projection.listener._AGAIN_S", 0.05)
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
    await wait_for(lambda: {str(job) for job in jobs} <= heard, what="all jobs")
    listening.cancel()
    await asyncio.wait([listening])
