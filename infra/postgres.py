"""Postgres for one process: a pool opened on first use, and the place where asyncpg's outages become ours."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from infra.clock import ServerClock
from infra.errors import DependencyDown

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

# What is raised when the server is away, restarting, full or read-only, as opposed to when a query is wrong.
# TimeoutError (no free connection, no answer in time) is an OSError.
_AWAY: tuple[type[BaseException], ...] = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    # Repeating the transaction is the documented answer to both, and no job's fault.
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)
# The code is newer than the schema: every event would fail, and none of them is to blame.
_OTHER_SCHEMA = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.UndefinedFunctionError)
_ACQUIRE_TIMEOUT_S = 10.0
_COMMAND_TIMEOUT_S = 60.0


async def _prepare(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=lambda value: orjson.dumps(value).decode(), decoder=orjson.loads
        )


def _down(error: BaseException) -> DependencyDown:
    return DependencyDown("postgres", f"Postgres is away: {type(error).__name__}: {error}; check DATABASE_URL")


@asynccontextmanager
async def _lost_is_down(connection: Connection) -> AsyncIterator[None]:
    """Tell a lost connection from a wrong argument; asyncpg raises InterfaceError for both.

    Raises:
        DependencyDown: the connection is lost, or in a state in which asyncpg cannot use it.
    """
    try:
        yield
    except asyncpg.InternalClientError as error:
        # "cannot switch to state …": the server died in the middle of an answer, and the rollback came upon its rest.
        raise _down(error) from error
    except asyncpg.InterfaceError as error:
        if _is_lost(connection):
            raise _down(error) from error
        raise


def _is_lost(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        # The pool took it back by itself, which it does when the connection is lost.
        return True


class Database:
    """A pool of at most `size` connections. `json` columns are read and written as Python values.

    The pool opens when it is first needed, so a process starts, and says that it is not ready, while Postgres is away.

    Attributes:
        clock: Postgres's. What is written to it, or compared with what was, is timed by this.
    """

    def __init__(self, url: str, *, size: int) -> None:
        self.clock = ServerClock()
        self._url = url
        self._size = size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()

    async def _open(self) -> "asyncpg.Pool[asyncpg.Record]":
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=1,
                    max_size=self._size,
                    init=_prepare,
                    timeout=_ACQUIRE_TIMEOUT_S,
                    command_timeout=_COMMAND_TIMEOUT_S,
                )
            return self._pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Give a connection in a transaction that commits when the block ends and rolls back when it raises.

        Raises:
            DependencyDown: Postgres went away, or has an older schema. Whether a commit under way took effect is then
                unknown, so callers must be idempotent.
        """
        try:
            async with self._borrowed() as connection, _lost_is_down(connection), connection.transaction():
                if self.clock.stale:
                    self.clock.learn(await connection.fetchval("SELECT clock_timestamp()"))
                yield connection
        except _AWAY as error:
            raise _down(error) from error
        except _OTHER_SCHEMA as error:
            raise DependencyDown("postgres", f"{error}: the database is not migrated; run teamfit migrate") from error

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[Connection]:
        """Give a connection of the pool, and take it back.

        Nothing that is raised in between comes from a caller's statement: whatever it is, it is about the server. One
        that dies while asyncpg connects or resets leaves it with errors of any type, its own bugs included.

        Raises:
            DependencyDown: there is no connection, or it was lost.
        """
        try:
            pool = self._pool or await self._open()
            connection = await pool.acquire(timeout=_ACQUIRE_TIMEOUT_S)
        except Exception as error:
            raise _down(error) from error
        try:
            yield connection
        finally:
            try:
                await pool.release(connection)
            except Exception as error:
                raise _down(error) from error

    async def close(self) -> None:
        """Close every connection; wait for those in use at most five seconds."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(5):
                await pool.close()
        except TimeoutError:
            pool.terminate()
