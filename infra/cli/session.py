"""One connection for a command that reads or repairs the whole database: no pool, no limit on a statement's time."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

import asyncpg

from infra.errors import DependencyDown

T = TypeVar("T")
Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_CONNECT_S = 10.0


async def session(url: str, work: Callable[[Session], Awaitable[T]]) -> T:
    """Connect, do the work, and disconnect; return what the work returns.

    Raises:
        DependencyDown: Postgres is away, refuses the connection, breaks it, or has another schema than ours.
    """
    try:
        connection = await asyncpg.connect(url, timeout=_CONNECT_S)
        try:
            return await work(connection)
        finally:
            if not connection.is_closed():
                await connection.close()
    except asyncpg.UndefinedTableError as error:
        raise DependencyDown("postgres", f"{error}; check DATABASE_URL, or run teamfit migrate") from error
    except (
        OSError,
        asyncpg.PostgresConnectionError,
        asyncpg.OperatorInterventionError,
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.InsufficientPrivilegeError,
    ) as error:
        raise DependencyDown(
            "postgres", f"Postgres is away, or refuses: {type(error).__name__}: {error}; check DATABASE_URL"
        ) from error
