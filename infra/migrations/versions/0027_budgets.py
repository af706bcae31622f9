"""A month has a budget, and each call reserves the most that it may cost."""

from infra.migrations.sql import run_file

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0027_budgets.sql")
