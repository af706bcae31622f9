"""The processes of the fleet, and what operators want of them."""

from infra.migrations.sql import run_file

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0026_controls.sql")
