"""Statements of `.sql` files go to the connection that they are given, and nowhere else.

aiosql takes pools too. To tell one from a connection it lists all names of what it is given, for each statement: that
takes as long as to send it. It is given no pools here, so it need not ask.
"""

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from aiosql.adapters.asyncpg import AsyncPGAdapter

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

    _Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
    _Values: TypeAlias = Mapping[str, Any]


class Statements(AsyncPGAdapter):
    """aiosql sends statements through this adapter."""

    async def select(
        self, conn: "_Connection", query_name: str, sql: str, parameters: "_Values", _record_class: None = None
    ) -> "AsyncIterator[asyncpg.Record]":
        """Give each row."""
        for row in await conn.fetch(sql, *self._in_order(query_name, parameters)):
            yield row

    async def select_one(
        self, conn: "_Connection", query_name: str, sql: str, parameters: "_Values", _record_class: None = None
    ) -> "asyncpg.Record | None":
        """Return the first row."""
        return await conn.fetchrow(sql, *self._in_order(query_name, parameters))

    async def select_value(self, conn: "_Connection", query_name: str, sql: str, parameters: "_Values") -> object:
        """Return the first value of the first row."""
        return await conn.fetchval(sql, *self._in_order(query_name, parameters))

    async def insert_update_delete(self, conn: "_Connection", query_name: str, sql: str, parameters: "_Values") -> str:
        """Write, and return what Postgres says that it has done."""
        return await conn.execute(sql, *self._in_order(query_name, parameters))

    def _in_order(self, query_name: str, parameters: "_Values") -> list[Any]:
        return [parameters[name] for name in self.var_sorted[query_name]]
