"""The statements of a job's path are planned once a connection, and none of their plans reads a table as a whole."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest

from consumers.projection.changes import Changes
from consumers.projection.status import find_job
from infra.auth import JOBS, Caller
from infra.postgres import Database
from streams.jobs.events import JobRequested
from streams.jobs.topics import JOB_REQUESTS, record
from tests.conftest import Pool
from tests.integration.pipeline_world import World, asked
from tests.integration.quota_scene import add_organization
from tests.pgbouncer import pgbouncer

_TIMES: Final = 12
# A row or more for each job, run, call or event.
_LARGE: Final = {
    "customization_jobs",
    "customized_activities",
    "dispatch_runs",
    "early_cancellations",
    "failed_events",
    "generation_attempts",
    "job_events",
    "job_outcomes",
    "job_owners",
    "job_requests",
    "quota_ledger",
    "scheduled_events",
    "webhook_deliveries",
}


@pytest.fixture
async def one_connection(database_url: str, database: Pool) -> AsyncIterator[Database]:
    """A worker's pool, of one, so that all statements are prepared in one session."""
    await add_organization(database, monthly_quota=1_000)
    opened = Database(database_url, size=1, keeps_plans=True)
    yield opened
    await opened.close()


async def test_the_statements_of_a_jobs_path_keep_plans_that_read_by_key(
    one_connection: Database, database: Pool
) -> None:
    """From the claim to the look of whoever waits, while every table is as small as on the first day."""
    await database.execute("ANALYZE")
    world, changes = World(one_connection, database), Changes(one_connection)
    for _ in range(_TIMES):
        request = asked()
        await world.publish([record(JOB_REQUESTS, request)])
        await _read(one_connection, request)
        await world.drain()
        await _read(one_connection, request)
        await changes._marks([str(request.job_id)])
    assert world.calls == _TIMES
    async with one_connection.connection() as connection:
        known = await connection.fetch(
            "SELECT name, statement, custom_plans, cardinality(parameter_types) AS parameters"
            " FROM pg_prepared_statements WHERE custom_plans + generic_plans >= $1",
            _TIMES,
        )
        assert len(known) > 20
        assert [row["statement"] for row in known if row["custom_plans"]] == []
        reading = []
        for row in known:
            values = f"({', '.join(['NULL'] * row['parameters'])})" if row["parameters"] else ""
            explained = await connection.fetchval(f'EXPLAIN (FORMAT JSON) EXECUTE "{row["name"]}"{values}')
            whole = {node["Relation Name"] for node in _nodes(explained) if node["Node Type"] == "Seq Scan"}
            reading += [(row["statement"], sorted(whole & _LARGE))] if whole & _LARGE else []
        assert reading == []


async def _read(database: Database, request: JobRequested) -> None:
    """Read a job as its customer does."""
    organization_id = request.data.organization_id
    async with database.connection() as connection:
        await find_job(connection, request.job_id, Caller("anna", organization_id, frozenset({JOBS})))


def _nodes(explained: Any) -> Iterator[dict[str, Any]]:
    """Walk through a plan."""
    if isinstance(explained, str):
        explained = json.loads(explained)
    for plan in explained:
        node = plan.get("Plan", plan)
        yield node
        yield from _nodes(node.get("Plans", []))


async def test_behind_a_pooler_nothing_is_set(database_url: str) -> None:
    """A setting would stay with the server's connection, which is somebody else's next."""
    with pgbouncer(database_url) as url:
        opened = Database(url, size=1, keeps_plans=True)
        async with opened.connection() as connection:
            assert await connection.fetchval("SHOW plan_cache_mode") == "auto"
            assert await connection.fetchval("SHOW enable_seqscan") == "on"
        await opened.close()
