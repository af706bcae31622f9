"""Running a whole SQL file inside a migration."""

from pathlib import Path
from typing import cast

import asyncpg
from alembic import op
from sqlalchemy.util import await_only


def run_file(name: str) -> None:
    """Run every statement of a file in `versions/`, in the migration's transaction.

    asyncpg prepares what SQLAlchemy sends, and a prepared statement holds one command; its own `execute` takes more.
    """
    script = (Path(__file__).parent / "versions" / name).read_text(encoding="utf-8")
    raw = op.get_bind().connection.dbapi_connection
    if raw is None or raw.driver_connection is None:
        msg = "Alembic's offline mode is not supported: a script needs a live connection"
        raise RuntimeError(msg)
    driver = cast("asyncpg.Connection[asyncpg.Record]", raw.driver_connection)
    await_only(driver.execute(script))
