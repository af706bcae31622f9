"""A table notes how far the retention of whole jobs went."""

from infra.migrations.sql import run_file

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0008_retention.sql")
