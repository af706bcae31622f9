"""What waits for generation waits here, and is released in a fair order: see docs/fairness.md."""

from infra.migrations.sql import run_file

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0013_dispatch.sql")
