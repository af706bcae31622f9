"""Organizations have endpoints that are told how their jobs end."""

from infra.migrations.sql import run_file

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0031_webhooks.sql")
