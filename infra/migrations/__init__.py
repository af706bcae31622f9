"""The database's schema, as numbered migrations that Alembic applies.

Each revision is SQL in a file beside it. A revision that ships before the code that needs it only adds; what removes
ships after. The tables of the TEAMFIT backend may be there already, with rows from its Celery days: they are kept.
"""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config

_FOLDER = Path(__file__).parent


def _config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["database_url"] = database_url
    return config


async def upgrade(database_url: str, *, revision: str = "head") -> None:
    """Bring the database to a revision. Runs one at a time per database; running it again changes nothing."""
    await asyncio.to_thread(command.upgrade, _config(database_url), revision)
