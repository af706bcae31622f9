"""A run's waits for the LLM's limits and for a held endpoint are kept."""

from infra.migrations.sql import run_file

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0025_waits_for_the_llm.sql")
