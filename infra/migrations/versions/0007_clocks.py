"""A mark tells times that a clock wrote before it was set back."""

from infra.migrations.sql import run_file

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0007_clocks.sql")
