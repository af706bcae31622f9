"""The fleet knows which endpoints' answers can be read as streams."""

from infra.migrations.sql import run_file

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0024_llm_streams.sql")
