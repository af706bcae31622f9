"""Many failed events are discarded by a plan, whose set is frozen and shown first."""

from infra.migrations.sql import run_file

revision = "0035"
down_revision = "0034"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0035_discard_plans.sql")
