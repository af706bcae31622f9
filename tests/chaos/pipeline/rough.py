"""Rough handling of the servers, by an operator, a managed service's patch or another program.

Each handling is entered and left like a fault; a row of the scoreboard takes those of one family in turn.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from infra.local.servers import start_valkey
from streams.jobs.stages import CONSUMER_GROUPS
from tests.chaos.pipeline.system import Inject, System
from tests.waiting import wait_for

_NOBODY = ("127.0.0.1", 1)  # a master that is never reached: a replica of it keeps what it has
_SLOW_S = 1.5
_PAUSE_MS = 1500


def in_turn(*handlings: Inject) -> Inject:
    """One row for all of them, one after the other."""

    @asynccontextmanager
    async def inject(system: System, turn: int) -> AsyncIterator[None]:
        async with handlings[turn % len(handlings)](system, turn):
            yield

    return inject


@asynccontextmanager
async def made_replica(system: System, _turn: int) -> AsyncIterator[None]:
    """Make the broker a replica, and afterwards a master again, as every failover does to the old master."""
    async with Redis.from_url(system.grounds.valkey.url) as redis:
        await redis.execute_command("REPLICAOF", *_NOBODY)
        try:
            yield
        finally:
            await redis.execute_command("REPLICAOF", "NO", "ONE")


@asynccontextmanager
async def failed_over(system: System, _turn: int) -> AsyncIterator[None]:
    """Have Sentinel make the replica the master, and the master its replica; next time it goes the other way.

    Until the old master has been told it takes writes that nobody will ever see again.
    """
    assert system.grounds.sentinel is not None
    await asyncio.to_thread(system.grounds.sentinel.fail_over)
    yield


@asynccontextmanager
async def promoted_behind(system: System, _turn: int) -> AsyncIterator[None]:
    """Go on with what a replica had that missed the last writes; the old master lives, and becomes its replica.

    The LLM is slow meanwhile: making a replica takes a while, and jobs must be under way when it is cut off.
    """
    await system.llm(mode="slow", latency=_SLOW_S)
    replica = await asyncio.to_thread(start_valkey, append_only=False)
    try:
        async with Redis.from_url(system.grounds.valkey.url) as old, Redis.from_url(replica.url) as new:
            await new.execute_command("REPLICAOF", "127.0.0.1", system.grounds.valkey.port)
            await wait_for(lambda: _linked(new), what="the replica to have everything")
            await new.execute_command("REPLICAOF", "NO", "ONE")
            yield  # only the old master hears of the jobs that come now, and of what is done
            await old.execute_command("REPLICAOF", "127.0.0.1", replica.port)
            await wait_for(lambda: _linked(old), what="the old master to follow")
            await old.execute_command("REPLICAOF", "NO", "ONE")
    finally:
        await asyncio.to_thread(replica.stop)
        await system.llm(mode="ok")


async def _linked(redis: Any) -> bool:
    return bool((await redis.info("replication")).get("master_link_status") == "up")


def _on_every_stream(*command: str) -> Inject:
    """Send a command for every stream and, where it names `GROUP`, for every group of it."""

    @asynccontextmanager
    async def inject(system: System, _turn: int) -> AsyncIterator[None]:
        async with Redis.from_url(system.grounds.valkey.url) as redis:
            for topic, groups in CONSUMER_GROUPS.items():
                for group in groups if "GROUP" in command else groups[:1]:
                    words = [{"TOPIC": topic, "GROUP": group}.get(word, word) for word in command]
                    with suppress(ResponseError):  # there is no such stream or group at the moment
                        await redis.execute_command(*words)
        yield

    return inject


@asynccontextmanager
async def _wrong_type(system: System, _turn: int) -> AsyncIterator[None]:
    async with Redis.from_url(system.grounds.valkey.url) as redis:
        for topic in CONSUMER_GROUPS:
            await redis.set(topic, "no stream")
        try:
            yield
        finally:
            await redis.delete(*CONSUMER_GROUPS)


@asynccontextmanager
async def _scripts_and_clients_gone(system: System, _turn: int) -> AsyncIterator[None]:
    async with Redis.from_url(system.grounds.valkey.url) as redis:
        await redis.script_flush()
        await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    yield


@asynccontextmanager
async def _memory_full(system: System, _turn: int) -> AsyncIterator[None]:
    async with Redis.from_url(system.grounds.valkey.url) as redis:
        before = str((await redis.config_get("maxmemory"))["maxmemory"])
        await redis.config_set("maxmemory", "1mb")
        try:
            yield
        finally:
            await redis.config_set("maxmemory", before)


@asynccontextmanager
async def _paused(system: System, _turn: int) -> AsyncIterator[None]:
    async with Redis.from_url(system.grounds.valkey.url) as redis:
        await redis.execute_command("CLIENT", "PAUSE", _PAUSE_MS, "ALL")
    yield


@asynccontextmanager
async def _read_only(system: System, _turn: int) -> AsyncIterator[None]:
    async with _superuser(system) as connection:
        await connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await connection.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            await connection.execute("SET default_transaction_read_only = off")
            await connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            await connection.execute("SELECT pg_reload_conf()")


@asynccontextmanager
async def _tables_locked(system: System, _turn: int) -> AsyncIterator[None]:
    async with _superuser(system) as connection, connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '5s'")
        await connection.execute("LOCK TABLE quota_usage, customized_activities, job_events IN ACCESS EXCLUSIVE MODE")
        yield


@asynccontextmanager
async def _backends_terminated(system: System, _turn: int) -> AsyncIterator[None]:
    async with _superuser(system) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
    yield


@asynccontextmanager
async def _superuser(system: System) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    connection = await asyncpg.connect(system.grounds.postgres.url, timeout=5)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


def killed(*kinds: str) -> Inject:
    """Kill one of each kind at once, in turn, and start them again."""

    @asynccontextmanager
    async def inject(system: System, turn: int) -> AsyncIterator[None]:
        parts = [system.parts(kind)[turn % 2] for kind in kinds]
        for part in parts:
            await asyncio.to_thread(system.kill, part)
        yield
        for part in parts:
            await asyncio.to_thread(system.start, part)

    return inject


@asynccontextmanager
async def _valkey_killed(system: System, _turn: int) -> AsyncIterator[None]:
    await asyncio.to_thread(system.grounds.valkey.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(system.grounds.valkey.restart)


def _together(*handlings: Inject) -> Inject:
    @asynccontextmanager
    async def inject(system: System, turn: int) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for handling in handlings:
                await stack.enter_async_context(handling(system, turn))
            yield

    return inject


streams_mangled = in_turn(
    _on_every_stream("XTRIM", "TOPIC", "MAXLEN", "0"),
    _on_every_stream("DEL", "TOPIC"),
    _on_every_stream("XGROUP", "DESTROY", "TOPIC", "GROUP"),
    _on_every_stream("XGROUP", "SETID", "TOPIC", "GROUP", "0"),
    _wrong_type,
)
broker_rough = in_turn(_scripts_and_clients_gone, _memory_full, _paused)
postgres_rough = in_turn(_read_only, _tables_locked, _backends_terminated)
webhooks_flushed = _together(killed("webhooks"), _on_every_stream("FLUSHALL"))
combined = in_turn(
    # What was started last is undone first: workers are started once their servers are back.
    _together(killed("quota", "generation"), _backends_terminated, _valkey_killed),
    _together(killed("projection", "schedule"), _on_every_stream("FLUSHALL")),
)
