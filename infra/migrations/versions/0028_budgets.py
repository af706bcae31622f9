"""A month has a budget, and each call reserves the most that it may cost."""

from infra.migrations.sql import run_file

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0028_budgets.sql")
