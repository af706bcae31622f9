"""Failed events that know whether they are dealt with, and the plans of replays."""

from infra.migrations.sql import run_file

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0003_replay.sql")
