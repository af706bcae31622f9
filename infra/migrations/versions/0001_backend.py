"""The tables of the TEAMFIT backend that admission and the prompt read; created only where they are missing."""

from infra.migrations.sql import run_file

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0001_backend.sql")
