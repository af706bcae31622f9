"""This adds what calls to the LLM cost in money (docs/llm.md)."""

from infra.migrations.sql import run_file

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0020_prices.sql")
