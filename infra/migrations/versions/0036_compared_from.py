"""An endpoint remembers from when on each fact has its delivery."""

from infra.migrations.sql import run_file

revision = "0036"
down_revision = "0035"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0036_compared_from.sql")
