"""The fleet shares one budget of requests and tokens for each LLM endpoint and model."""

from infra.migrations.sql import run_file

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0019_pace.sql")
