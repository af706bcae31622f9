"""A bucket that was written by a clock that was ahead is full."""

from infra.migrations.sql import run_file

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0029_intake_clock.sql")
