"""A job's events are read in their order, from any of them on."""

from infra.migrations.sql import run_file

revision = "0037"
down_revision = "0036"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0037_job_events_in_order.sql")
