"""Connections that were lost unnoticed."""

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError

from streams.redis.connections import improve


class _ClosedUnderUvloop(Connection):
    async def send_packed_command(self, *_: object, **__: object) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")


async def test_writing_to_a_closed_connection_is_a_lost_connection() -> None:
    """A connection that was reset ended every worker under uvloop, whose RuntimeError nothing expected."""
    client = Redis()
    client.connection_pool.connection_class = _ClosedUnderUvloop
    improve(client.connection_pool)
    connection = client.connection_pool.make_connection()
    with pytest.raises(RedisConnectionError, match="lost before a command was sent"):
        await connection.send_packed_command(b"PING")
    await client.aclose()
