"""This adds how fast, and how far ahead, each organization may ask (docs/front-ends.md)."""

from infra.migrations.sql import run_file

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0016_intake_limits.sql")
