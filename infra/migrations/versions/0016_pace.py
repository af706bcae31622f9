"""The fleet shares one budget of requests and tokens for each LLM endpoint and model."""

from infra.migrations.sql import run_file

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0016_pace.sql")
