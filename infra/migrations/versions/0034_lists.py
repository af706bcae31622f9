"""Every filter of a list has an index in the order of time."""

from infra.migrations.sql import run_file

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0034_lists.sql")
