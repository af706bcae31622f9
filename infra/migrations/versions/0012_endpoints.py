"""The fleet keeps what it learns about LLM endpoints.

It keeps how each is asked, why one is held, and what probes have cost.
"""

from infra.migrations.sql import run_file

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0012_endpoints.sql")
