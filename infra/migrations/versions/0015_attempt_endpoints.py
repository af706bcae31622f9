"""Each attempt names the endpoint that was called."""

from infra.migrations.sql import run_file

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0015_attempt_endpoints.sql")
