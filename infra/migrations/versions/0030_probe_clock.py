"""A hold knows when the time of its next probe was set."""

from infra.migrations.sql import run_file

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0030_probe_clock.sql")
