"""A table says whose each job is. Another keeps withdrawals of jobs that were not archived."""

from infra.migrations.sql import run_file

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0010_ownership.sql")
