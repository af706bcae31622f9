"""The console's sign-in: sessions that the server can end, and links that sign in once."""

from infra.migrations.sql import run_file

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0018_console.sql")
