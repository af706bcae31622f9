"""The seal of internal headers, and rows that are set aside."""

from infra.migrations.sql import run_file

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0011_seal.sql")
