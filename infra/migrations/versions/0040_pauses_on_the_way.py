"""An organization that is paused in any stage after quota has no run released."""

from infra.migrations.sql import run_file

revision = "0040"
down_revision = "0039"


def upgrade() -> None:
    """Apply the revision's SQL."""
    run_file("0040_pauses_on_the_way.sql")
