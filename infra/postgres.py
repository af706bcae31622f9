"""One process reaches Postgres by connections and a pool. Outages become DependencyDown.

A pooler may stand before the server (pgbouncer and its kin). In its transaction mode two transactions of one connection
may run on two servers, so nothing here outlives a transaction: locks and settings are the transaction's, and behind a
pooler statements have no names. A pooler is found by asking: the process ID that it gives its client is no server's.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Any, Final, Literal, TypeAlias

import aiosql
import asyncpg
import orjson
import structlog
from asyncpg.pool import PoolConnectionProxy

from infra.clock import ServerClock
from infra.database_url import DatabaseAddress, read_database_url
from infra.errors import DependencyDown
from infra.postgres_errors import AWAY, CORRUPTED, OTHER_SCHEMA, STATEMENTS_ASTRAY, down, is_of_the_server
from infra.statements import Statements

log = structlog.get_logger(__name__)

aiosql.register_adapter("asyncpg", Statements)  # type: ignore[arg-type] # it is one, with names of types of its own

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_COMMAND_TIMEOUT_S = 60.0
_NAMED_STATEMENTS: Final = 100  # per connection; asyncpg's own default
# Two indices are put together as maps of the rows that each finds. What does not fit here is kept by page instead, and
# each row of such a page is looked at: at the default of 4 MB millions were, of five million jobs. Seldom is it used.
_LIST_MEMORY: Final = "32MB"
# Left to itself, Postgres plans a statement anew each time for the length of its arrays, which takes four times as long
# as running it. A plan that is kept must not read a table as a whole: made while the table is small, it would go on so
# until Postgres looks at the table again.
_KEPT_PLANS: Final = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off"
# A process that stands still in a transaction, or a connection that dies unnoticed, would keep its locks from all other
# processes. No transaction waits so long for anything but the server. A pooler has a limit of its own for it.
_STANDS_STILL: Final = "SET idle_in_transaction_session_timeout = '60s'"


def columns(rows: Sequence[object], **attributes: str) -> dict[str, list[Any]]:
    """Return a list of each attribute, as statements with `unnest` take their rows.

    `columns(events, job_ids="job_id", team_ids="data.team_id")` has the lists `job_ids` and `team_ids`.
    """
    return {name: list(map(attrgetter(attribute), rows)) for name, attribute in attributes.items()}


async def plan_for_values(connection: "Session | Connection", *, by_index: bool = False) -> None:
    """Have the transaction's statements planned for their values: of a filter, few are given.

    Args:
        connection: in a transaction.
        by_index: read no table as a whole where an index will do, however small it may seem: a list takes little of it.
    """
    seqscan = "off" if by_index else "on"
    chosen = f"SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = {seqscan}"
    await connection.execute(f"{chosen}; SET LOCAL work_mem = '{_LIST_MEMORY}'" if by_index else chosen)


async def plan_for_any_values(connection: "Session | Connection") -> None:
    """Have the transaction's statements planned as if no value were known.

    A value that very many rows have misleads: the first events of such a job were looked for among those of all jobs.
    """
    await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")


async def reading_json(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Have a connection read and write JSON as values."""
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=lambda value: orjson.dumps(value).decode(), decoder=orjson.loads
        )


async def connect(address: DatabaseAddress) -> Session:
    """Open a connection that fits behind a pooler: its statements have no names.

    Raises:
        DependencyDown: the server is away, or refuses.
    """
    try:
        return await asyncpg.connect(**address.arguments, statement_cache_size=0)
    except Exception as error:
        # Whatever it is, it is about the server: asyncpg lets out errors of any type while it connects.
        raise down(error) from error


async def behind_pooler(connection: "Session | Connection") -> bool:
    """Return true if a pooler stands between. Then the server's process is not the one that the connection was told."""
    async with connection.transaction():
        return bool(await connection.fetchval("SELECT pg_backend_pid()") != connection.get_server_pid())


@asynccontextmanager
async def _lost_isdown(connection: Connection) -> AsyncIterator[None]:
    """Tell a lost connection from a wrong argument; asyncpg raises InterfaceError for both.

    Raises:
        DependencyDown: the connection is lost, or in a state in which asyncpg cannot use it.
    """
    try:
        yield
    except asyncpg.InternalClientError as error:
        # "cannot switch to state …": the server died in the middle of an answer, and the rollback came upon its rest.
        raise down(error) from error
    except asyncpg.InterfaceError as error:
        if _is_lost(connection):
            raise down(error) from error
        raise


def _is_lost(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        # The pool took it back by itself, which it does when the connection is lost.
        return True


class _Stateless(asyncpg.Connection):
    """A connection whose sessions keep nothing, so that nothing has to be reset between two borrowers.

    That would be one more round trip for each transaction. One that is still open is rolled back all the same.
    """

    def get_reset_query(self) -> str:
        """Return no statement."""
        return ""


class Database:
    """A pool of at most `size` connections. `json` columns are read and written as Python values.

    The pool opens when it is first needed, so a process starts, and says that it is not ready, while Postgres is away.

    Attributes:
        clock: Postgres's. What is written to it, or compared with what was, is timed by this.
    """

    def __init__(self, url: str, *, size: int, keeps_plans: bool = False) -> None:
        """Remember where to connect.

        Args:
            url: of the server.
            size: connections at most.
            keeps_plans: whether statements are planned once for each connection, as fits those that read by key.
                Elsewhere each is planned for the values that it is given.

        Raises:
            InvalidSetting: the URL cannot be used.
        """
        self.clock = ServerClock()
        self._address = read_database_url(url)
        self._pooled = self._address.pooled
        self._size = size
        self._keeps_plans = keeps_plans
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def _open(self) -> "asyncpg.Pool[asyncpg.Record]":
        async with self._opening:
            if self._pool is None:
                if self._pooled is None:
                    self._pooled = await self._finds_pooler()
                self._pool = await asyncpg.create_pool(
                    **self._address.arguments,
                    # A pool with a floor logs a traceback each time that it finds the server still away.
                    min_size=0,
                    max_size=self._size,
                    init=self._prepare,
                    command_timeout=_COMMAND_TIMEOUT_S,
                    connection_class=_Stateless,
                    statement_cache_size=0 if self._pooled else _NAMED_STATEMENTS,
                )
            return self._pool

    async def _prepare(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        await reading_json(connection)
        # Behind a pooler settings would be another client's too, and statements have no names to keep a plan for.
        if not self._pooled:
            await connection.execute(f"{_STANDS_STILL}; {_KEPT_PLANS}" if self._keeps_plans else _STANDS_STILL)

    async def _finds_pooler(self) -> bool:
        connection = await connect(self._address)
        try:
            pooled = await behind_pooler(connection)
        finally:
            connection.terminate()
        if pooled:
            log.info("postgres.pooler_found", consequence="statements have no names")
        return pooled

    def _expect_pooler(self) -> None:
        """Open the next pool for a pooler; the one in use closes when its transactions have ended."""
        pool, self._pool, self._pooled = self._pool, None, True
        if pool is not None:
            closing = asyncio.create_task(_close(pool))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False, for_values: bool = False) -> AsyncIterator[Connection]:
        """Give a connection in a transaction. It commits when the block ends and rolls back when it raises.

        Args:
            snapshot: only read, and have every statement see the same moment.
            for_values: have each statement planned for its values, as fits those that look at many rows.

        Raises:
            DependencyDown: Postgres went away, or has an older schema. Whether a commit under way took effect is then
                unknown, so callers must be idempotent.
        """
        isolation: Literal["repeatable_read"] | None = "repeatable_read" if snapshot else None
        async with self.connection() as connection, connection.transaction(isolation=isolation, readonly=snapshot):
            if self.clock.stale:
                self.clock.learn(await connection.fetchval("SELECT clock_timestamp()"))
            if for_values:
                await plan_for_values(connection)
            yield connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Give a connection on which each statement commits by itself.

        So no stalled process keeps a lock.

        Raises:
            DependencyDown: as for `transaction`.
        """
        try:
            async with self._borrowed() as connection, _lost_isdown(connection):
                yield connection
        except STATEMENTS_ASTRAY as error:
            self._expect_pooler()
            raise DependencyDown(
                "postgres", f"a pooler before Postgres lost a statement ({error}); from now on they have no names"
            ) from error
        except CORRUPTED:
            raise
        except AWAY as error:
            raise down(error) from error
        except asyncpg.UnknownPostgresError as error:
            if is_of_the_server(error):
                raise down(error) from error
            raise
        except OTHER_SCHEMA as error:
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
            connection = await pool.acquire(timeout=self._address.timeout_s)
        except DependencyDown:
            raise
        except Exception as error:
            raise down(error) from error
        try:
            yield connection
        finally:
            try:
                await pool.release(connection)
            except Exception as error:
                raise down(error) from error

    async def connect_apart(self) -> Session:
        """Open a connection that is not the pool's; whoever asks closes it. Raises DependencyDown."""
        return await connect(self._address)

    async def close(self) -> None:
        """Close every connection; wait for those in use at most five seconds."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await _close(pool)


async def _close(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    try:
        async with asyncio.timeout(5):
            await pool.close()
    except TimeoutError:
        pool.terminate()
