"""A mark tells a replayed run that arrived from a lost one."""

from infra.migrations.sql import run_file

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0006_reruns.sql")
