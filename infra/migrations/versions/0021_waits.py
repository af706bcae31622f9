"""Each attempt keeps since when its run had waited."""

from infra.migrations.sql import run_file

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0021_waits.sql")
