"""Connections whose loss is an error that redis-py's callers know, on every event loop.

uvloop raises RuntimeError ("the handler is closed") when a command is written to a connection that the server or the
network reset a moment ago. redis-py translates only OSError, and a worker would end of an error that no loop expects.
"""

from __future__ import annotations

from typing import Any, cast

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError

__all__ = ["translate_losses"]


def translate_losses(pool: ConnectionPool) -> None:
    """Have the connections that the pool will make raise redis-py's ConnectionError when they are found closed."""
    pool.connection_class = _translating(cast("Any", pool.connection_class))


def _translating(base: type[AbstractConnection]) -> type[AbstractConnection]:
    class Translating(base):  # type: ignore[misc, valid-type]  # each kind of connection has its own base
        async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
            try:
                await super().send_packed_command(*args, **kwargs)
            except RuntimeError as error:
                raise RedisConnectionError(f"Connection lost before a command was sent: {error}") from error

    return Translating
