"""The schema, on an empty database and on one that has served the Celery tasks."""

import asyncio
from uuid import UUID

import asyncpg

from infra.migrations import upgrade

CELERY_DAYS = """
CREATE TABLE customization_jobs (
    job_id varchar(64) PRIMARY KEY, organization_id text, team_id text, status varchar(20) NOT NULL,
    error_message text, created_at timestamp DEFAULT now(), completed_at timestamp
);
CREATE TABLE customized_activities (
    id serial PRIMARY KEY, job_id varchar(64) REFERENCES customization_jobs (job_id), title text, description text
);
INSERT INTO customization_jobs (job_id, organization_id, team_id, status, created_at)
VALUES ('4d2f1c3e-0000-4000-8000-000000000001', 'acme', 'team-1', 'completed', '2025-03-01 12:00');
INSERT INTO customized_activities (job_id, title, description)
SELECT '4d2f1c3e-0000-4000-8000-000000000001', 'Title ' || n, 'Text' FROM generate_series(1, 3) AS n;
"""
COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns
WHERE table_schema = 'public' ORDER BY 1, 2
"""


async def test_rows_of_the_celery_days_are_kept(empty_database_url: str) -> None:
    """Jobs and activities written before the pipeline keep their values and get positions and UUIDs."""
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute(CELERY_DAYS)
        await upgrade(empty_database_url)
        job = await connection.fetchrow("SELECT * FROM customization_jobs")
        activities = await connection.fetch("SELECT * FROM customized_activities ORDER BY position")
    finally:
        await connection.close()
    assert job is not None
    assert job["job_id"] == UUID("4d2f1c3e-0000-4000-8000-000000000001")
    assert (job["status"], job["organization_id"], job["run"]) == ("completed", "acme", 1)
    assert [(one["position"], one["title"]) for one in activities] == [(1, "Title 1"), (2, "Title 2"), (3, "Title 3")]


async def test_migrating_twice_changes_nothing(empty_database_url: str) -> None:
    """A second deployment finds the schema as the first one left it."""
    connection = await asyncpg.connect(empty_database_url)
    try:
        await upgrade(empty_database_url)
        first = await connection.fetch(COLUMNS)
        await upgrade(empty_database_url)
        second = await connection.fetch(COLUMNS)
    finally:
        await connection.close()
    assert first == second
    assert {"quota_ledger", "job_events", "failed_events"} <= {row["table_name"] for row in first}


async def test_many_may_migrate_at_once(empty_database_url: str) -> None:
    """Whoever comes first does the work; the others find it done."""
    await asyncio.gather(*(upgrade(empty_database_url) for _ in range(3)))
    connection = await asyncpg.connect(empty_database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM teamfit_schema_version") == 1
    finally:
        await connection.close()


async def test_step_by_step_and_at_once_give_the_same_schema(
    empty_database_url: str, database: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    """A database that was migrated release by release equals one that was created afresh."""
    for revision in ("0001", "0002", "0003", "head"):
        await upgrade(empty_database_url, revision=revision)
    connection = await asyncpg.connect(empty_database_url)
    try:
        stepwise = await connection.fetch(COLUMNS)
    finally:
        await connection.close()
    assert stepwise == await database.fetch(COLUMNS)


async def test_counts_that_cannot_be_become_unknown(empty_database_url: str) -> None:
    """Zeros for a missing usage and absurd counts leave the attempts and the organization's total."""
    await upgrade(empty_database_url, revision="0008")
    connection = await asyncpg.connect(empty_database_url)
    counts = {1: (100, 50), 2: (0, 0), 3: (1151, -35), 4: (2**31 - 1, 2**31 - 1), 5: (None, None)}
    try:
        await connection.executemany(
            "INSERT INTO generation_attempts (job_id, run, attempt, token, state, started_at, organization_id)"
            " VALUES ('4d2f1c3e-0000-4000-8000-000000000001', 1, $1, gen_random_uuid(), 'started', now(), 'acme')",
            [(attempt,) for attempt in counts],
        )
        await connection.executemany(
            "UPDATE generation_attempts SET state = 'saved', prompt_tokens = $2, completion_tokens = $3"
            " WHERE attempt = $1",
            [(attempt, *count) for attempt, count in counts.items()],
        )
        await upgrade(empty_database_url)
        rows = await connection.fetch(
            "SELECT prompt_tokens, completion_tokens, maybe_billed FROM generation_attempts ORDER BY attempt"
        )
        total = await connection.fetchrow("SELECT calls, prompt_tokens, completion_tokens FROM llm_usage")
    finally:
        await connection.close()
    unknown = (None, None, True)
    assert [tuple(row) for row in rows] == [(100, 50, False), unknown, (1151, None, True), unknown, (None, None, False)]
    assert total is not None
    assert tuple(total) == (5, 1251, 50)
