"""Indexes find jobs by time, team, error, run, trace and words of their wish."""

from infra.migrations.sql import run_file

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0017_job_search.sql")
