"""Tickets for event streams are kept until they are used."""

from infra.migrations.sql import run_file

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0027_event_tickets.sql")
