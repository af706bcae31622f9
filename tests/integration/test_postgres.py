"""Outages of Postgres, as the stages hear of them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import asyncpg
import pytest

import infra.postgres
from infra.errors import DependencyDown
from infra.postgres import Database
from tests.chaos.pipeline.proxy import Proxy
from tests.conftest import Pool
from tests.waiting import wait_for


async def test_a_statement_on_a_lost_connection_means_that_postgres_is_away(database_url: str, database: Pool) -> None:
    """A connection that died a moment ago is an outage, so its delivery is held; it used to look like a bug.

    The pool had taken the connection back, so asking whether it was closed raised another error, which moved events to
    the dead letters and ended the schedule's worker.
    """
    own = Database(database_url, size=1)
    try:
        with pytest.raises(DependencyDown):
            await _use_after_loss(own, database)
        async with own.transaction() as connection:
            assert await connection.fetchval("SELECT 1") == 1
    finally:
        await own.close()


async def test_a_wrong_argument_is_no_outage(database_url: str) -> None:
    """What is wrong with a statement is raised as it is."""
    own = Database(database_url, size=1)
    try:
        with pytest.raises(asyncpg.InterfaceError):
            async with own.transaction() as connection:
                await connection.execute("SELECT $1::int", 1, 2)
    finally:
        await own.close()


@pytest.mark.parametrize(
    "sqlstate",
    [
        *("57P01", "57P02", "57P03", "57P04", "57014", "57P05", "57P99"),  # terminated, crashed, starting, timed out
        *("08000", "08003", "08006", "08P01"),  # lost, and how pgbouncer says anything
        *("53000", "53100", "53200", "53300", "53400"),  # the disk, memory, connections; a managed service's quota
        *("25006", "25P02", "25P03", "25P04"),  # a replica after a failover, a transaction that took too long
        *("40001", "40P01", "40003", "40999"),
        *("55P03", "55000", "55006"),  # lock_timeout of the role
        *("0A000", "0A999"),  # a plan from before a migration
        *("58000", "58030", "XX000"),  # pgcat, Supavisor and Neon
        *("28000", "28P01", "42501", "3D000"),
        *("42P01", "42703", "42883", "42704", "3F000", "42P10"),  # the schema is older
    ],
)
async def test_what_the_server_says_of_itself_holds_and_buries_no_event(database_url: str, sqlstate: str) -> None:
    """By the class of its code, whatever the code: no job is to blame, and none spends an attempt."""
    own = Database(database_url, size=1)
    try:
        with pytest.raises(DependencyDown, match="swordfish") as raised:
            async with own.transaction() as connection:
                await connection.execute(f"DO $$ BEGIN RAISE 'swordfish' USING ERRCODE = '{sqlstate}'; END $$")
        assert "\n" not in str(raised.value)
    finally:
        await own.close()


@pytest.mark.parametrize("sqlstate", ["22P02", "23505", "22999", "42601", "P0001", "21000", "XX001", "XX002", "TF001"])
async def test_what_a_statement_or_its_values_cause_is_no_outage(database_url: str, sqlstate: str) -> None:
    """Nor is a row whose page is broken, or what a trigger of somebody else raises: others go on."""
    own = Database(database_url, size=1)
    try:
        with pytest.raises(asyncpg.PostgresError, match="swordfish"):
            async with own.transaction() as connection:
                await connection.execute(f"DO $$ BEGIN RAISE 'swordfish' USING ERRCODE = '{sqlstate}'; END $$")
    finally:
        await own.close()


async def test_a_plan_from_before_a_migration_holds_for_a_moment(database_url: str, database: Pool) -> None:
    """A column changes its type under connections that know a statement: no event is to blame, and the next is read."""
    own = Database(database_url, size=1)
    await database.execute("CREATE TABLE planned (a int)")
    try:
        for changed in (False, True):
            if changed:
                await database.execute("ALTER TABLE planned ALTER a TYPE text")
                with pytest.raises(DependencyDown, match="after a migration"):
                    async with own.transaction() as connection:
                        await connection.fetch("SELECT * FROM planned")
            async with own.transaction() as connection:
                assert await connection.fetch("SELECT * FROM planned") == []
    finally:
        await own.close()
        await database.execute("DROP TABLE planned")


async def test_a_connection_that_asyncpg_cannot_use_any_more_is_an_outage(database_url: str) -> None:
    """A server that dies in the middle of an answer leaves asyncpg confused, not the event wrong."""
    own = Database(database_url, size=1)
    try:
        with pytest.raises(DependencyDown):
            async with own.transaction():
                raise asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")
    finally:
        await own.close()


async def test_who_stands_still_in_a_transaction_does_not_keep_its_locks(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hangs, or whose connection died unnoticed, would keep a job from all others; it hears of it."""
    monkeypatch.setattr(infra.postgres, "_STANDS_STILL", "SET idle_in_transaction_session_timeout = '300ms'")
    hung, other = Database(database_url, size=1), Database(database_url, size=1)
    lock, has_it, goes_on = "SELECT pg_advisory_xact_lock(20310403)", asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        async with hung.transaction() as connection:
            await connection.execute(lock)
            has_it.set()
            await goes_on.wait()
            await connection.execute(lock)

    try:
        hanging = asyncio.create_task(hang())
        async with asyncio.timeout(20):
            await has_it.wait()
            async with other.transaction() as connection:
                await connection.execute(lock)
        goes_on.set()
        with pytest.raises(DependencyDown):
            await hanging
        async with hung.transaction() as connection:
            assert await connection.fetchval("SELECT 1") == 1
    finally:
        await hung.close()
        await other.close()


async def test_every_pool_has_a_limit_for_it(database_url: str) -> None:
    """Whether it keeps plans or not."""
    for keeps_plans in (False, True):
        pool = Database(database_url, size=1, keeps_plans=keeps_plans)
        try:
            async with pool.connection() as connection:
                assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") == "1min"
        finally:
            await pool.close()


@pytest.mark.parametrize("step", ["acquire", "release"])
async def test_whatever_goes_wrong_around_a_transaction_is_an_outage(
    database_url: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A server that dies while asyncpg connects or resets leaves it with any error; one such ended a worker."""
    own = Database(database_url, size=1)
    async with own.transaction():
        pass

    async def confused(*_: object, **__: object) -> None:
        raise asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress")

    try:
        with monkeypatch.context() as patched:
            patched.setattr(asyncpg.pool.Pool, step, confused)
            with pytest.raises(DependencyDown, match="DATABASE_URL"):
                async with own.transaction():
                    pass
    finally:
        own._pool.terminate()  # type: ignore[union-attr]  # the connection was not given back


async def test_an_outage_is_told_by_who_meets_it_and_by_no_pool(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A pool with a floor logged a traceback each time that it found the server still away."""
    server = urlsplit(database_url)
    async with Proxy(server.port or 5432) as proxy:
        through = server._replace(netloc=f"{server.username}:{server.password}@127.0.0.1:{proxy.port}")
        opened = Database(through.geturl(), size=2)
        async with opened.connection() as connection:
            assert await connection.fetchval("SELECT 1") == 1
    # The proxy is gone, and with it every connection.
    for _ in range(5):
        with pytest.raises(DependencyDown):
            async with opened.connection() as connection:
                await connection.fetchval("SELECT 1")
    assert not [record.getMessage() for record in caplog.records if record.name.startswith("asyncpg")]
    await opened.close()


async def test_time_is_what_postgres_says(database_url: str) -> None:
    """Hosts need not agree on the time: what is written to Postgres is timed by Postgres."""
    own = Database(database_url, size=1)
    own.clock.learn(datetime(2031, 4, 1, tzinfo=UTC))
    assert own.clock.now() >= datetime(2031, 4, 1, tzinfo=UTC)

    async def has_asked() -> bool:
        async with own.transaction() as connection:
            before = await connection.fetchval("SELECT clock_timestamp() - interval '1 second'")
        return bool(before < own.clock.now() < before + timedelta(days=1))

    try:
        await wait_for(has_asked, what="Postgres to be asked again")
    finally:
        await own.close()


async def _use_after_loss(own: Database, database: Pool) -> None:
    async with own.transaction() as connection:
        pid = await connection.fetchval("SELECT pg_backend_pid()")
        await database.execute("SELECT pg_terminate_backend($1)", pid)
        with suppress(asyncpg.PostgresError):
            await connection.execute("SELECT 1")
        await connection.execute("SELECT 1")


async def _as_a_web_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()
    writer.close()


async def _in_silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(100):  # as Redis does with what is no command of its
        pass
    writer.close()


@pytest.mark.parametrize(
    ("answer", "changes", "says"),
    [
        (_as_a_web_server, {}, "no Postgres: check host and port"),
        (_as_a_web_server, {"query": "sslmode=require"}, "no Postgres: check host and port"),
        (_in_silence, {"query": "connect_timeout=1"}, "check host and port in DATABASE_URL"),
        (_in_silence, {"query": "connect_timeout=1&sslmode=require"}, "check host and port in DATABASE_URL"),
        (None, {"netloc": "u:s3cret@127.0.0.1:1"}, "check DATABASE_URL"),
        (None, {"netloc": "u:s3cret@postgres.invalid"}, "check DATABASE_URL"),
        (None, {"path": "/nowhere"}, "no such database"),
    ],
)
async def test_a_url_that_reaches_something_else_is_named_in_a_line(
    database_url: str, answer: Callable[..., Awaitable[None]] | None, changes: dict[str, str], says: str
) -> None:
    """The sentence names the variable and where to look, and repeats no password."""
    parts = urlsplit(database_url)
    async with AsyncExitStack() as open_here:
        if answer is not None:
            server = await open_here.enter_async_context(await asyncio.start_server(answer, "127.0.0.1", 0))
            parts = parts._replace(netloc=f"u:s3cret@127.0.0.1:{server.sockets[0].getsockname()[1]}")
        database = Database(parts._replace(**changes).geturl(), size=1)
        with pytest.raises(DependencyDown) as caught:
            async with database.transaction():
                pass
        await database.close()
        # Who answers hears of it a moment later.
        await wait_for(lambda: asyncio.all_tasks() == {asyncio.current_task()}, what="the server's part to end")
    said = str(caught.value)
    assert says in said
    assert "DATABASE_URL" in said
    assert "\n" not in said
    assert "s3cret" not in said
