"""Calls without a price are found and counted by model, however many calls there are."""

from infra.migrations.sql import run_file

revision = "0038"
down_revision = "0037"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0038_unpriced_calls.sql")
