"""The way back to the Celery tasks, and forth again, as docs/deploying.md tells it."""

import re
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from infra.migrations import upgrade
from tests.integration.test_adopting_celery_tables import JOB, OLD_BACKEND
from tests.integration.test_migrations import CELERY_DAYS, COLUMNS

_ROOT = Path(__file__).parents[2]
_DOCUMENT = (_ROOT / "docs" / "deploying.md").read_text()
# What the old code sends, by the tables that it had: text IDs, its own columns, and no position.
_CELERY_WRITES = {
    CELERY_DAYS: """
        INSERT INTO customization_jobs (job_id, organization_id, status)
        VALUES ('{job}'::varchar, 'acme', 'processing');
        INSERT INTO customized_activities (job_id, title) VALUES ('{job}'::varchar, 'A walk');
    """,
    OLD_BACKEND: """
        INSERT INTO customization_jobs (id, job_id, team_id, status, task_name)
        VALUES (gen_random_uuid(), '{job}'::varchar, 'team-1', 'PENDING'::job_status, 'customize');
        INSERT INTO customized_activities (id, job_id, title, description, template_id)
        VALUES (gen_random_uuid(), '{job}'::varchar, 'A walk', 'Outdoors', 7);
    """,
}


@pytest.mark.parametrize("before", [CELERY_DAYS, OLD_BACKEND], ids=["plain tables", "enumerations and references"])
async def test_celery_works_again_on_the_tables_and_the_pipeline_after_it(empty_database_url: str, before: str) -> None:
    """The page's SQL lets the old code write as it did; its file brings the pipeline's schema back, with all rows."""
    (way_back,) = re.findall(r"```sql\n(ALTER TABLE customization_jobs.*?)```", _DOCUMENT, re.DOTALL)
    (file,) = re.findall(r"-f (infra/migrations/\S+\.sql)", _DOCUMENT)
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute(before)
        await upgrade(empty_database_url)
        migrated = await connection.fetch(COLUMNS)
        await connection.execute(way_back)
        job = uuid4()
        await connection.execute(_CELERY_WRITES[before].format(job=job))
        found = await connection.fetch(
            "SELECT job_id FROM customization_jobs WHERE job_id = ANY ($1::text[])", [str(JOB)]
        )
        assert [row["job_id"] for row in found] == [str(JOB)]
        await connection.execute((_ROOT / file).read_text())
        assert await connection.fetch(COLUMNS) == migrated
        assert await connection.fetchval("SELECT position FROM customized_activities WHERE job_id = $1", job) == 1
    finally:
        await connection.close()
