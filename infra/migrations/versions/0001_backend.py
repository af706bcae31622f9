"""This migration creates the TEAMFIT backend's tables where they are missing. Admission and the prompt read them."""

from infra.migrations.sql import run_file

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0001_backend.sql")
