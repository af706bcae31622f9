"""The database's schema, as numbered migrations that Alembic applies.

Each revision is SQL in a file beside it. A revision that ships before the code that needs it only adds; what removes
ships after. The tables of the TEAMFIT backend may be there already, with rows from its Celery days: they are kept.
"""

import asyncio
import threading
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError

from infra.errors import DependencyDown

_FOLDER = Path(__file__).parent

# `alembic.context` and `alembic.op` are proxies of the module, so two upgrades in one process would mix.
_ONE_AT_A_TIME = threading.Lock()

# Some come from asyncpg as they are, some dressed by SQLAlchemy.
_UNREACHABLE = (
    OSError,
    ArgumentError,
    InterfaceError,
    OperationalError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


def _config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["database_url"] = database_url
    return config


def _upgrade(config: Config, revision: str) -> None:
    with _ONE_AT_A_TIME:
        command.upgrade(config, revision)


async def upgrade(database_url: str, *, revision: str = "head") -> None:
    """Bring the database to a revision. Runs one at a time per database; running it again changes nothing.

    Raises:
        DependencyDown: the database cannot be reached.
    """
    try:
        await asyncio.to_thread(_upgrade, _config(database_url), revision)
    except _UNREACHABLE as error:
        raise DependencyDown("postgres", f"cannot reach the database: {error}; check DATABASE_URL") from error
