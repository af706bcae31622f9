"""Jobs are counted by time, and periodic tasks and checks say how they last went."""

from infra.migrations.sql import run_file

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0033_overview.sql")
