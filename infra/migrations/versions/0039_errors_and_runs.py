"""Jobs by error, and reruns by status, are read in a page's order."""

from infra.migrations.sql import run_file

revision = "0039"
down_revision = "0038"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0039_errors_and_runs.sql")
