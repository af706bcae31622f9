"""The log of actions: what operators did, and what was refused."""

from infra.migrations.sql import run_file

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0023_actions.sql")
