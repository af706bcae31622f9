"""A bucket that was written by a clock that was ahead is full."""

from infra.migrations.sql import run_file

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0028_intake_clock.sql")
