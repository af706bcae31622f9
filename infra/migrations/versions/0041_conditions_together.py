"""Statistics say how many jobs meet several conditions."""

from infra.migrations.sql import run_file

revision = "0041"
down_revision = "0040"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0041_conditions_together.sql")
