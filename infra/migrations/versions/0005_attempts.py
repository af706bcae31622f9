"""A mark tells a repeated event from one whose worker was lost."""

from infra.migrations.sql import run_file

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0005_attempts.sql")
