"""The pipeline's own tables, and the two it takes over from the Celery days."""

from infra.migrations.sql import run_file

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0002_adopt_celery_tables.sql")
    run_file("0002_pipeline.sql")
