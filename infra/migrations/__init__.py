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
from sqlalchemy.exc import DBAPIError

from infra.database_url import DatabaseAddress, read_database_url
from infra.postgres_errors import down

_FOLDER = Path(__file__).parent

# `alembic.context` and `alembic.op` are proxies of the module, so two upgrades in one process would mix.
_ONE_AT_A_TIME = threading.Lock()

# What the server may say while it migrates; a statement that is wrong is none of these, and shows its traceback.
_UNUSABLE = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidTransactionStateError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.PostgresSystemError,
    asyncpg.InterfaceError,
)


def _config(address: DatabaseAddress) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["address"] = address
    return config


def _upgrade(config: Config, revision: str) -> None:
    with _ONE_AT_A_TIME:
        command.upgrade(config, revision)


async def upgrade(database_url: str, *, revision: str = "head") -> None:
    """Bring the database to a revision. Runs one at a time per database; running it again changes nothing.

    Raises:
        InvalidSetting: the URL cannot be used.
        DependencyDown: the database cannot be reached, or its user may not change it.
    """
    config = _config(read_database_url(database_url))
    try:
        await asyncio.to_thread(_upgrade, config, revision)
    except DBAPIError as error:  # what came from SQLAlchemy's own statements
        cause = error.orig.__cause__ if error.orig is not None else None
        if isinstance(cause, _UNUSABLE):
            raise down(cause) from error
        raise
    except _UNUSABLE as error:
        raise down(error) from error
