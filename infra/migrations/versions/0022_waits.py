"""Each attempt keeps since when its run had waited."""

from infra.migrations.sql import run_file

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0022_waits.sql")
