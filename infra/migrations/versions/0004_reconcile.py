"""The reconciler and the schedules get indexes on live rows, and a memory."""

from infra.migrations.sql import run_file

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0004_reconcile.sql")
