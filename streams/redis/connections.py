"""Seven things that redis-py's asyncio connections lack.

Their loss is an error that redis-py's callers know, on every event loop: uvloop raises RuntimeError ("the handler is
closed") when a command is written to a connection that the server or the network reset a moment ago. redis-py
translates only OSError, and a worker would end of an error that no loop expects.

After a failover the old master still answers, as a replica: a connection that is told so is closed, so that the next
one is made to whoever the name stands for by then.

Commands are packed by hiredis, as redis-py's blocking connections do; its asyncio ones do it in Python, which for a
command with five hundred entries costs as much as everything else about it.

A server whose certificate is not trusted is an error that says which setting to look at, and so is one that speaks TLS
where the URL says that it does not, or the other way round.

They do not begin by telling the server redis-py's version: that takes two commands and a permission of its own.

Sentinels may have no password though their master has one, and then refuse to be told any.
"""

from __future__ import annotations

import asyncio
import contextlib
from ssl import SSLCertVerificationError
from time import monotonic
from typing import Any, Final, cast

import hiredis
from redis.asyncio.connection import AbstractConnection, ConnectionPool, SSLConnection
from redis.exceptions import AuthenticationError, MasterDownError, ReadOnlyError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from .address import tls_advice

__all__ = ["go_on_without_login", "improve"]

# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_OF_ANOTHER_HOST = frozenset({62, 64})


# So seldom is it looked whether the URL is wrong about TLS, since most lost connections have other reasons.
_LOOK_EVERY_S: Final = 60.0
_HANDSHAKE_S: Final = 1.0


def improve(pool: ConnectionPool) -> None:
    """Have the pool make such connections from now on."""
    pool.connection_class = _improved(cast("Any", pool.connection_class))


def _improved(base: type[AbstractConnection]) -> type[AbstractConnection]:
    # One for each pool, since what it remembers is about that pool's server.
    return type("Improved", (_Improvements, base), {})


class _Improvements(AbstractConnection):
    """Each kind of connection of redis-py is made more careful by this."""

    looked_at = -_LOOK_EVERY_S
    advice = ""
    has_answered = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.driver_info = self.lib_name = self.lib_version = None  # named differently before redis-py 7.2

    async def connect(self) -> None:
        try:
            if self._may_wait_in_vain():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_HANDSHAKE_S):
                        await super().connect()  # type: ignore[no-untyped-call]
                    return
                await self._raise_advised(RedisTimeoutError("Timeout connecting to server"))
            await super().connect()  # type: ignore[no-untyped-call]
        except (RedisConnectionError, RedisTimeoutError) as error:
            await self._raise_advised(error)
            raise

    def _may_wait_in_vain(self) -> bool:
        """Whether this is a first handshake: a server without TLS lets it wait until its time is over."""
        return isinstance(self, SSLConnection) and not type(self).has_answered and self._looks_again()

    def _looks_again(self) -> bool:
        return monotonic() - type(self).looked_at >= _LOOK_EVERY_S

    def pack_command(self, *args: Any) -> list[bytes]:
        name, *rest = args
        # Some names are two words, such as XGROUP CREATE; the server wants them apart.
        words = name.split() if isinstance(name, str | bytes) else [name]
        try:
            return [hiredis.pack_command((*words, *rest))]
        except TypeError:
            return super().pack_command(*args)

    async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super().send_packed_command(*args, **kwargs)
        except RuntimeError as error:
            raise RedisConnectionError(f"Connection lost before a command was sent: {error}") from error

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            response = await super().read_response(*args, **kwargs)
        except (ReadOnlyError, MasterDownError):
            await self.disconnect(nowait=True)
            raise
        except RedisConnectionError as error:
            await self._raise_advised(error)
            raise
        type(self).has_answered = True
        return response

    async def _raise_advised(self, error: RedisConnectionError | RedisTimeoutError) -> None:
        """Raise the error with advice on TLS, if the server has never answered and the URL is wrong about that."""
        host, port = getattr(self, "host", None), getattr(self, "port", None)
        if type(self).has_answered or host is None or port is None:
            return
        if type(error) not in {RedisConnectionError, RedisTimeoutError}:
            return
        if self._looks_again():
            type(self).looked_at = monotonic()
            type(self).advice = await tls_advice(host, int(port), tls=isinstance(self, SSLConnection))
        if self.advice and self.advice not in str(error):
            raise type(error)(f"{error}{self.advice}") from error

    def _error_message(self, exception: BaseException) -> str:
        message: str = super()._error_message(exception)
        if isinstance(exception, SSLCertVerificationError) and exception.verify_code in _OF_ANOTHER_HOST:
            return f"{message} Write the host that its certificate is for into the broker URL."
        if isinstance(exception, SSLCertVerificationError):
            return f"{message} Is ssl_ca_certs in the broker URL the file of the server's authority?"
        return message


def go_on_without_login(pool: ConnectionPool) -> None:
    """Keep the pool's connections as they are when the server refuses the login.

    A server that asks for a login refuses the first command instead, and says so.
    """
    pool.connection_class = _lenient(cast("Any", pool.connection_class))


def _lenient(base: type[AbstractConnection]) -> type[AbstractConnection]:
    class Lenient(base):  # type: ignore[misc, valid-type]  # each kind of connection has its own base
        username: str | None
        password: str | None

        async def connect(self) -> None:
            try:
                await super().connect()
            except AuthenticationError:
                login = self.username, self.password
                self.username = self.password = None
                try:
                    await super().connect()
                finally:
                    self.username, self.password = login  # for the next time: the server may be given a password

    return Lenient
