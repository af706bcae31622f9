"""A job's owner is kept with a digest of what was asked for."""

from infra.migrations.sql import run_file

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0013_wishes.sql")
