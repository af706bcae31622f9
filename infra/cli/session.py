"""A command gets its database, its broker and its operator's name here."""

import asyncio
import getpass
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TypeVar

import asyncpg

from infra import tracing
from infra.actions import acting_as
from infra.database_url import read_database_url
from infra.errors import DependencyDown
from infra.postgres import Database, Session, connect
from infra.postgres_errors import AWAY, down
from infra.settings import settings
from producers.broker import Broker

T = TypeVar("T")


def operator() -> str:
    """Return who runs the command, as the machine knows them."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name; before Python 3.13 that is a KeyError
        return "cli"


def with_database(work: Callable[[Database], Awaitable[T]]) -> T:
    """Run a coroutine with the settings' database, and close it."""

    async def run() -> T:
        database = Database(settings().database_url, size=3)
        try:
            return await work(database)
        finally:
            await database.close()

    with acting_as(operator(), "cli"):
        return asyncio.run(run())


@asynccontextmanager
async def opened_broker(name: str, *, limit: timedelta = timedelta(seconds=3)) -> AsyncIterator[Broker]:
    """Give the settings' broker, and close it."""
    tracing.start(settings(), name)
    broker = Broker(settings(), name=name, timeout=limit)
    try:
        yield broker
    finally:
        await broker.close()


def with_session(work: Callable[[Session], Awaitable[T]]) -> T:
    """Run a coroutine with one connection to the settings' database, and close it.

    For what reads or repairs the whole database: a statement may take its time.

    Raises:
        DependencyDown: Postgres is away, refuses the connection, breaks it, or has another schema than ours.
    """
    with acting_as(operator(), "cli"):
        return asyncio.run(_in_session(work))


async def _in_session(work: Callable[[Session], Awaitable[T]]) -> T:
    connection = await connect(read_database_url(settings().database_url))
    try:
        return await work(connection)
    except asyncpg.UndefinedTableError as error:
        raise DependencyDown("postgres", f"{error}; check DATABASE_URL, or run teamfit migrate") from error
    except AWAY as error:
        raise down(error) from error
    finally:
        if not connection.is_closed():
            await connection.close()
