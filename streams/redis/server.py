"""The connection to the server, and the one place that knows redis-py's errors."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, cast

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)
from yarl import URL

from .connections import improve
from .errors import BrokerUnavailable, EntryRefused, InvalidSettings, TransportError
from .settings import RedisSettings

__all__ = ["AWAY", "Backoff", "Client", "Server", "is_missing_group", "translate"]

Client = Redis | RedisCluster

# What says "not now" rather than "not this": the loops wait and try again.
AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    ReadOnlyError,
    MasterDownError,
    ClusterDownError,
    ClusterError,
    TryAgainError,
    OSError,
    asyncio.TimeoutError,
)
_RAW = (
    "XREADGROUP", "XREAD", "XCLAIM", "XPENDING", "XINFO GROUPS", "XINFO CONSUMERS", "XADD", "XRANGE", "EVAL", "EVALSHA",
)  # fmt: skip


class Backoff:
    """Growing, jittered waits between attempts; `reset` after a success."""

    def __init__(self, first: float = 0.05, most: float = 2.0) -> None:
        self._first, self._most = first, most
        self._next = first

    def reset(self) -> None:
        """Begin small again."""
        self._next = self._first

    def wait(self) -> float:
        """Seconds to wait before the next attempt. Jittered, so that a fleet does not come back in step."""
        wait, self._next = self._next, min(self._next * 2, self._most)
        return wait * random.uniform(0.5, 1.0)


def is_missing_group(error: BaseException) -> bool:
    """Whether the stream or its group is gone (a flush, a failover to an empty server). Redis says it only in text."""
    # Redis 6.2 puts a sentence about the script before the code.
    return isinstance(error, ResponseError) and any(code in str(error) for code in ("NOGROUP", "UNBLOCKED"))


def translate(error: BaseException, *, sent: bool) -> TransportError:
    """The error that a caller of the producer gets for what redis-py raised.

    Args:
        error: from redis-py or the socket.
        sent: whether bytes of the command may have reached the server.
    """
    if isinstance(error, TransportError):
        return error
    refused = isinstance(error, (ReadOnlyError, MasterDownError, ClusterDownError, BusyLoadingError, TryAgainError))
    if refused or isinstance(error, (AuthenticationError,)):
        return BrokerUnavailable(f"Connection to broker failed: {error}", maybe_written=False)
    if isinstance(error, AWAY):
        return BrokerUnavailable(f"Connection to broker failed: {error}", maybe_written=sent)
    return translate_reply(str(error))


def translate_reply(message: str) -> TransportError:
    """As `translate`, for an error that came back as text from within a script."""
    # The codes of errors that say "not now": Redis gives them in text only.
    if message.split(" ", 1)[0] in {"READONLY", "MASTERDOWN", "CLUSTERDOWN", "LOADING", "TRYAGAIN", "NOREPLICAS"}:
        return BrokerUnavailable(f"Connection to broker failed: {message}", maybe_written=False)
    return EntryRefused(f"the server refused the entry: {message}")


@cache
def _script(name: str) -> tuple[str, str]:
    """The text of `scripts/<name>.lua`, and the digest by which the server remembers it."""
    folder = files(__package__) / "scripts"
    text = (folder / f"{name}.lua").read_text()
    if "owned(" in text:
        text = (folder / "owned.lua").read_text() + text
    return text, hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 - the server names scripts by it


async def run_script(client: Client, name: str, key: bytes | str, *args: bytes | str | int) -> Any:
    """Run `scripts/<name>.lua` on one stream; loads it again when the server has forgotten it."""
    return await run_script_by(client.execute_command, name, key, *args)


async def run_script_by(
    execute: Callable[..., Awaitable[Any]], name: str, key: bytes | str, *args: bytes | str | int
) -> Any:
    """As `run_script`, for a caller that sends its commands in a way of its own."""
    text, digest = _script(name)
    try:
        return await execute("EVALSHA", digest, 1, key, *args)
    except NoScriptError:
        return await execute("EVAL", text, 1, key, *args)


class Server:
    """Opens clients for one broker URL: a single server, Sentinel, or a Cluster."""

    def __init__(self, urls: Sequence[URL], settings: RedisSettings) -> None:
        self.urls = urls
        self.settings = settings
        if settings.cluster and settings.sentinel:
            raise InvalidSettings("broker URL: cluster and sentinel exclude each other")

    def open(self) -> Client:
        """A client of its own, that connects on first use and never repeats a command by itself.

        Repeating is the caller's decision: a repeated XADD may write twice, a repeated XREADGROUP may lose a reply.
        """
        options: dict[str, Any] = {
            "protocol": 2,
            "socket_connect_timeout": self.settings.timeout.total_seconds(),
            "socket_timeout": (self.settings.block + self.settings.timeout).total_seconds(),
            "socket_keepalive": True,
        }
        client = self._open(options)
        if isinstance(client, Redis):
            improve(client.connection_pool)
        for command in _RAW:
            client.set_response_callback(command, cast("Any", _raw))
        return client

    def _open(self, options: dict[str, Any]) -> Client:
        first = self.urls[0]
        credentials: dict[str, Any] = {"username": first.user, "password": first.password}
        retry = Retry(NoBackoff(), 0)
        if first.scheme == "unix":
            path_options = {"unix_socket_path": first.path, **credentials, **options}
            return Redis(**path_options, retry=retry)
        tls: dict[str, Any] = {"ssl": True, **self.settings.tls} if first.scheme == "rediss" else {}
        hosts = [(url.host or "127.0.0.1", url.port or 6379) for url in self.urls]
        if self.settings.cluster:
            nodes = [ClusterNode(host, port) for host, port in hosts]
            return RedisCluster(startup_nodes=nodes, **credentials, **tls, **options)
        database = int(first.path.strip("/") or 0)
        if self.settings.sentinel:
            sentinel = Sentinel(hosts, sentinel_kwargs={"socket_timeout": 1.0, **tls}, **options)
            client: Redis = sentinel.master_for(
                self.settings.sentinel, db=database, retry=retry, **credentials, **tls, **options
            )
            return client
        host, port = hosts[0]
        return Redis(host=host, port=port, db=database, retry=retry, **credentials, **tls, **options)


async def close(client: Client) -> None:
    """Close a client that `Server.open` gave out, and what it uses to find the master."""
    pool = client.connection_pool if isinstance(client, Redis) else None
    await client.aclose()
    if isinstance(pool, SentinelConnectionPool):
        for watcher in pool.sentinel_manager.sentinels:
            await watcher.aclose()


def _raw(reply: Any, **_: Any) -> Any:
    return reply


async def forget_connections(client: Client, error: BaseException) -> None:
    """After a failover the old master still answers, read-only: connect anew, so that names are resolved again."""
    if isinstance(error, ReadOnlyError) and isinstance(client, Redis):
        await client.connection_pool.disconnect()


__all__ += ["RedisError", "close", "forget_connections", "run_script", "run_script_by", "translate_reply"]
