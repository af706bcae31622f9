"""${message}."""

from infra.migrations.sql import run_file

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("${up_revision}.sql")
