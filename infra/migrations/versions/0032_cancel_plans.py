"""A bulk cancellation is a plan with a frozen set."""

from infra.migrations.sql import run_file

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0032_cancel_plans.sql")
