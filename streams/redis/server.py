"""The connection to the server is made here, where alone redis-py's errors are known.

What stands between here and the server may answer anything at all: a proxy, a service that speaks most of the protocol.
An entry is acknowledged, and given up, only when the reply has the shape of the server's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from functools import cache
from importlib.resources import files
from typing import Any, cast

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    DataError,
    InvalidResponse,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from .address import BrokerAddress, advice_on
from .connections import go_on_without_login, improve
from .errors import BrokerUnavailable, EntryRefused, TransportError

__all__ = ["AWAY", "Client", "Server", "checked_id", "checked_ids", "is_missing_group", "translate"]

Client = Redis | RedisCluster

# What says that the server cannot be worked with now, whatever is asked of it.
AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    ReadOnlyError,
    MasterDownError,
    ClusterDownError,
    ClusterError,
    RedisClusterException,
    TryAgainError,
    OSError,
    asyncio.TimeoutError,
)
_RAW = (
    "XREADGROUP", "XREAD", "XCLAIM", "XPENDING", "XINFO GROUPS", "XINFO CONSUMERS", "XADD", "XRANGE", "EVAL", "EVALSHA",
)  # fmt: skip

_SENTINEL_S = 1.0  # how long one Sentinel may take to answer before the next one is asked


def is_missing_group(error: BaseException) -> bool:
    """Return whether the stream or its group is gone.

    A flush does it, a failover to an empty server, another type of key.

    Redis says it only in text, where 6.2 puts a sentence about the script before the code. Nothing is pending then.
    """
    return isinstance(error, ResponseError) and any(code in str(error) for code in ("NOGROUP", "WRONGTYPE"))


# The codes of replies that say "not now" rather than "not this". redis-py makes errors of their own of some of them,
# whose text it then leaves out.
_NOT_NOW = {
    "READONLY", "MASTERDOWN", "CLUSTERDOWN", "LOADING", "TRYAGAIN", "NOREPLICAS", "BUSY", "UNBLOCKED", "MOVED", "ASK",
}  # fmt: skip
_NOT_NOW_ERRORS = (
    ReadOnlyError, MasterDownError, ClusterDownError, BusyLoadingError, TryAgainError, AskError, AuthenticationError,
)  # fmt: skip


def translate(error: BaseException, *, sent: bool) -> TransportError:
    """The error that a caller of the producer gets for what redis-py raised.

    Args:
        error: from redis-py or the socket.
        sent: whether bytes of the command may have reached the server.
    """
    if isinstance(error, TransportError):
        return error
    if isinstance(error, _NOT_NOW_ERRORS):
        return BrokerUnavailable(f"Connection to broker failed: {error}{advice_on(error)}", maybe_written=False)
    if isinstance(error, (ResponseError, DataError)):
        return translate_reply(str(error))
    # No reply of the server: a lost connection, a Cluster without a node, whatever a client may raise.
    return BrokerUnavailable(f"Connection to broker failed: {error}{advice_on(error)}", maybe_written=sent)


def translate_reply(message: str) -> TransportError:
    """As `translate`, for an error that came back as text from within a script."""
    if message.split(" ", 1)[0] in _NOT_NOW:
        return BrokerUnavailable(f"Connection to broker failed: {message}", maybe_written=False)
    return EntryRefused(f"the server refused the entry: {message}{advice_on(message)}")


@cache
def script_text(name: str) -> str:
    """Return the text of `scripts/<name>.lua`, with what it shares with others."""
    folder = files(__package__) / "scripts"
    text = (folder / f"{name}.lua").read_text()
    return (folder / "owned.lua").read_text() + text if "owned(" in text else text


@cache
def script_digest(text: str) -> str:
    """Return the digest by which the server remembers a script. What a proxy says of it may be wrong."""
    return hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 - the server names scripts by it


async def run_script(client: Client, name: str, key: bytes | str, *args: bytes | str | int) -> Any:
    """Run `scripts/<name>.lua` on one stream; loads it again when the server has forgotten it."""
    return await run_script_by(client.execute_command, name, key, *args)


async def run_script_by(
    execute: Callable[..., Awaitable[Any]], name: str, key: bytes | str, *args: bytes | str | int
) -> Any:
    """As `run_script`, for a caller that sends its commands in a way of its own."""
    return await run_text_by(execute, script_text(name), key, *args)


async def run_text_by(
    execute: Callable[..., Awaitable[Any]], text: str, key: bytes | str, *args: bytes | str | int
) -> Any:
    """As `run_script_by`, for a script that is in no file of this package."""
    try:
        return await execute("EVALSHA", script_digest(text), 1, key, *args)
    except NoScriptError:
        return await execute("EVAL", text, 1, key, *args)


class Server:
    """Opens clients for one broker: a single server, a master under Sentinels, or a Cluster."""

    def __init__(self, address: BrokerAddress) -> None:
        self.address = address
        self.settings = address.settings

    def open(
        self, *, block: timedelta | None = None, retry: Retry | None = None, retry_on: Sequence[type[Exception]] = ()
    ) -> Client:
        """Open a client that connects on first use. By default it never repeats a command by itself.

        Repeating is the caller's decision: a repeated XADD may write twice, a repeated XREADGROUP may lose a reply.

        Args:
            block: the longest that a command of this client waits on the server; the settings' own by default.
            retry: how often to repeat a command that failed.
            retry_on: for which errors beside a lost connection.
        """
        settings = self.settings
        longest = settings.block if block is None else block
        options: dict[str, Any] = {
            "protocol": 2,
            "socket_connect_timeout": settings.timeout.total_seconds(),
            "socket_timeout": (longest + settings.timeout).total_seconds(),
            "socket_keepalive": True,
        }
        client = self._open(options, retry or Retry(NoBackoff(), 0), list(retry_on))
        if isinstance(client, Redis):
            improve(client.connection_pool)
        for command in _RAW:
            client.set_response_callback(command, cast("Any", _raw))
        return client

    def _open(self, options: dict[str, Any], retry: Retry, retry_on: list[type[Exception]]) -> Client:
        address = self.address
        credentials: dict[str, Any] = {"username": address.username, "password": address.password}
        once_more: dict[str, Any] = {"retry": retry, "retry_on_error": retry_on}
        if address.socket is not None:
            return Redis(unix_socket_path=address.socket, db=address.database, **credentials, **options, **once_more)
        tls: dict[str, Any] = {"ssl": True, **self.settings.tls} if address.scheme == "rediss" else {}
        if self.settings.cluster:
            nodes = [ClusterNode(host, port) for host, port in address.hosts]
            return RedisCluster(startup_nodes=nodes, **credentials, **tls, **options)
        if self.settings.sentinel:
            client: Redis = self._sentinels({**options, **tls}).master_for(
                self.settings.sentinel, db=address.database, **credentials, **tls, **options, **once_more
            )
            return client
        host, port = address.hosts[0]
        return Redis(host=host, port=port, db=address.database, **credentials, **tls, **options, **once_more)

    def _sentinels(self, options: dict[str, Any]) -> Sentinel:
        settings, address = self.settings, self.address
        own = settings.sentinel_password is not None
        login: dict[str, Any] = {
            "username": settings.sentinel_username if own else address.username,
            "password": settings.sentinel_password if own else address.password,
        }
        # The next Sentinel is asked instead of the same one again: redis-py's own retries take ten seconds.
        once = {"socket_timeout": _SENTINEL_S, "retry": Retry(NoBackoff(), 0)}
        found = Sentinel(address.hosts, sentinel_kwargs={**options, **once, **login})
        for sentinel in found.sentinels:
            improve(sentinel.connection_pool)
            if not own:
                go_on_without_login(sentinel.connection_pool)
        return found


@contextlib.asynccontextmanager
async def asking(server: Server, what: str) -> AsyncIterator[Client]:
    """Give a client of its own to a question that no worker depends on.

    Raises:
        BrokerUnavailable: the server is away.
        TransportError: it does not answer the question, which `what` names.
    """
    client = server.open()
    try:
        yield client
    except Exception as error:
        away = translate(error, sent=False)
        if isinstance(away, BrokerUnavailable):
            raise away from error
        raise TransportError(f"the server does not {what}: {error}") from error
    finally:
        await close(client)


async def close(client: Client) -> None:
    """Close a client that `Server.open` gave out, and what it uses to find the master. Raises nothing."""
    pool = client.connection_pool if isinstance(client, Redis) else None
    watchers = pool.sentinel_manager.sentinels if isinstance(pool, SentinelConnectionPool) else ()
    for opened in (client, *watchers):
        with contextlib.suppress(Exception):  # a connection that cannot be closed in order is as good as closed
            await opened.aclose()


def _raw(reply: Any, **_: Any) -> Any:
    return reply


__all__ += ["close", "run_script", "run_script_by", "run_text_by", "script_digest", "script_text", "translate_reply"]


def checked_id(reply: Any) -> bytes:
    """Return the ID of the entry that an XADD has written. Raises InvalidResponse when the reply is none."""
    if isinstance(reply, bytes) and b"-" in reply:
        return reply
    raise InvalidResponse(f"answered {reply!r:.80} instead of an entry's ID")


def checked_ids(reply: Any) -> list[bytes]:
    """Return a list of entries' IDs. Raises InvalidResponse when the reply is something else."""
    if isinstance(reply, list) and all(isinstance(one, bytes) for one in reply):
        return reply
    raise InvalidResponse(f"answered {reply!r:.80} instead of entries' IDs")
