"""Whose each job is, and what was lost of jobs that were withdrawn before they were archived."""

from infra.migrations.sql import run_file

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0010_ownership.sql")
