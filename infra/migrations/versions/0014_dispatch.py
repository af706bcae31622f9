"""This adds fair dispatch: what waits for generation waits in tables (docs/fairness.md)."""

from infra.migrations.sql import run_file

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0014_dispatch.sql")
