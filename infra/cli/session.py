"""What a command works with: the database, by a pool or by one connection, and the name of who runs it."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from infra.database_url import read_database_url
from infra.errors import DependencyDown
from infra.postgres import Database, Session, connect, down
from infra.settings import Settings, settings
from infra.telemetry import configure_logging

T = TypeVar("T")


def operator() -> str:
    """Return who runs the command, as the machine knows them."""
    try:
        return getpass.getuser()
    except OSError:  # a container's user may have no name
        return "cli"


def start_logging() -> Settings:
    """Return the settings of a process that serves, once its log is as they say.

    They are read a second time then, so that what they are warned about is in that log.
    """
    first = Settings()
    configure_logging(first.log_format, first.log_level)
    return settings()


def with_database(work: Callable[[Database], Awaitable[T]]) -> T:
    """Run a coroutine with the settings' database, and close it."""

    async def run() -> T:
        database = Database(settings().database_url, size=3)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


async def session(url: str, work: Callable[[Session], Awaitable[T]]) -> T:
    """Connect, do the work, and disconnect; return what the work returns.

    For what reads or repairs the whole database: one connection, without a limit on a statement's time.

    Raises:
        DependencyDown: Postgres is away, refuses the connection, breaks it, or has another schema than ours.
    """
    connection = await connect(read_database_url(url))
    try:
        return await work(connection)
    except asyncpg.UndefinedTableError as error:
        raise DependencyDown("postgres", f"{error}; check DATABASE_URL, or run teamfit migrate") from error
    except (
        OSError,
        asyncpg.PostgresConnectionError,
        asyncpg.OperatorInterventionError,
        asyncpg.InsufficientPrivilegeError,
    ) as error:
        raise down(error) from error
    finally:
        if not connection.is_closed():
            await connection.close()
