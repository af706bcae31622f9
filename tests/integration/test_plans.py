"""The statements of a job's path are planned once, and not each time that they run.

Postgres plans a prepared statement anew each time while it believes that knowing the length of an array is worth it. So
it did with twelve statements of a job's path, which was a third of what they cost. Where an array stands in a SELECT of
its own, its length is not known, and the plan is kept.
"""

from collections.abc import AsyncIterator

import pytest

from consumers.projection.changes import Changes
from infra.postgres import Database
from streams.jobs.topics import JOB_REQUESTS, record
from tests.conftest import Pool
from tests.integration.pipeline_world import World, asked
from tests.integration.quota_scene import add_organization

# Postgres plans the first five times for the values in hand, to compare.
_FIRST = 5
_TIMES = 12


@pytest.fixture
async def one_connection(database_url: str, database: Pool) -> AsyncIterator[Database]:
    """A pool of one, so that all statements are prepared in one session."""
    await add_organization(database, monthly_quota=1_000)
    opened = Database(database_url, size=1)
    yield opened
    await opened.close()


async def test_no_statement_of_a_jobs_path_is_planned_each_time(one_connection: Database, database: Pool) -> None:
    """From the claim to the look of whoever waits, for jobs that come one by one."""
    world, changes = World(one_connection, database), Changes(one_connection)
    for _ in range(_TIMES):
        request = asked()
        await world.publish([record(JOB_REQUESTS, request)])
        await world.drain()
        await changes._marks([str(request.job_id)])
    assert world.calls == _TIMES
    async with one_connection.connection() as connection:
        planned = await connection.fetch("SELECT statement FROM pg_prepared_statements WHERE custom_plans > $1", _FIRST)
    assert [row["statement"] for row in planned] == []
