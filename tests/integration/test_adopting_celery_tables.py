"""What the migration makes of tables that an older backend filled in its own way."""

from datetime import UTC, datetime
from uuid import UUID

import asyncpg

from infra.migrations import upgrade

JOB = UUID("4d2f1c3e-0000-4000-8000-000000000001")
OLD_BACKEND = f"""
CREATE TYPE job_status AS ENUM ('PENDING', 'SUCCESS');
CREATE TABLE organizations (id text PRIMARY KEY, name text NOT NULL, trust_score float NOT NULL DEFAULT 1);
CREATE TABLE teams (id text PRIMARY KEY, organization_id text NOT NULL REFERENCES organizations (id), name text);
INSERT INTO organizations VALUES ('acme', 'Acme');
INSERT INTO teams VALUES ('team-1', 'acme', 'The first');
CREATE TABLE customization_jobs (
    id uuid PRIMARY KEY, job_id varchar(64) UNIQUE NOT NULL, team_id varchar(64) NOT NULL REFERENCES teams (id),
    status job_status NOT NULL DEFAULT 'PENDING', task_name varchar(100) NOT NULL, error_message varchar(200),
    created_at timestamp, completed_at timestamp, CHECK (status IN ('PENDING', 'SUCCESS'))
);
CREATE TABLE customized_activities (
    id uuid PRIMARY KEY, job_id varchar(64) NOT NULL REFERENCES customization_jobs (job_id),
    title varchar(200) NOT NULL, description text NOT NULL, template_id integer NOT NULL
);
INSERT INTO customization_jobs (id, job_id, team_id, status, task_name, completed_at)
VALUES (gen_random_uuid(), '{JOB}', 'team-1', 'SUCCESS', 'customize', '2025-03-01 12:00');
"""


async def test_naive_times_are_read_as_utc_and_owners_follow_from_teams(empty_database_url: str) -> None:
    """A Celery row keeps its moments, as UTC, and belongs to the organization of its team."""
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute(OLD_BACKEND)
        await upgrade(empty_database_url)
        job = await connection.fetchrow("SELECT * FROM customization_jobs")
    finally:
        await connection.close()
    assert job is not None
    assert job["completed_at"] == job["created_at"] == datetime(2025, 3, 1, 12, tzinfo=UTC)
    assert (job["organization_id"], job["status"], job["task_name"]) == ("acme", "SUCCESS", "customize")


async def test_the_pipeline_can_write_beside_the_old_rows(empty_database_url: str) -> None:
    """Columns, references and rules that only the old code knew do not refuse the pipeline's rows."""
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute(OLD_BACKEND)
        await upgrade(empty_database_url)
        new = UUID("4d2f1c3e-0000-4000-8000-000000000002")
        await connection.execute(
            "INSERT INTO customization_jobs (job_id, team_id, status) VALUES ($1, 'unknown team', 'cancelled')", new
        )
        await connection.execute(
            "INSERT INTO customized_activities (job_id, position, title) VALUES ($1, 1, 'A walk')", new
        )
        assert await connection.fetchval("SELECT count(*) FROM customization_jobs") == 2
    finally:
        await connection.close()
