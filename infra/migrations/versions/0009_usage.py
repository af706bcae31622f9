"""Token counts that no call can have cost are unknown."""

from infra.migrations.sql import run_file

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0009_usage.sql")
