"""A pooler in transaction mode between the pipeline and Postgres."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from infra.database_url import read_database_url
from infra.errors import DependencyDown
from infra.migrations import upgrade
from infra.postgres import Database, behind_pooler, connect
from tests.conftest import Pool
from tests.pgbouncer import FORGETS_STATEMENTS, TRACKS_STATEMENTS, needs_pgbouncer, pgbouncer
from tests.waiting import wait_for

pytestmark = needs_pgbouncer


@pytest.fixture(
    params=[
        pytest.param(FORGETS_STATEMENTS, id="forgetting"),
        pytest.param({"max_prepared_statements": "200"}, id="tracking", marks=TRACKS_STATEMENTS),
    ]
)
async def pooled_url(database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A migrated database behind a pooler, one that knows nothing of named statements and one that tracks them."""
    with pgbouncer(database_url, settings=request.param) as url:
        yield url


async def _work(database: Database, rounds: int) -> None:
    """Run statements of several shapes, in transactions that get whichever server is next."""
    for number in range(rounds):
        async with database.transaction() as connection:
            await connection.execute("SELECT set_config('lock_timeout', $1, true)", "1s")
            row = await connection.fetchrow("SELECT $1::jsonb AS document, $2::int[] AS numbers", {"a": number}, [1, 2])
            assert row is not None
            assert (row["document"], row["numbers"]) == ({"a": number}, [1, 2])
            await connection.executemany("SELECT $1::int", [(1,), (2,)])


async def test_statements_and_settings_survive_a_pooler(pooled_url: str) -> None:
    """Many processes at once, each transaction on another server: today most of them failed with statements astray."""
    databases = [Database(pooled_url, size=4) for _ in range(4)]
    try:
        await asyncio.gather(*(_work(database, 20) for database in databases for _ in range(3)))
    finally:
        await asyncio.gather(*(database.close() for database in databases))


async def test_a_pooler_is_recognized_by_itself(pooled_url: str, database_url: str) -> None:
    """The server's process is not the one that the pooler told its client; without a pooler it is."""
    for url, expected in ((pooled_url, True), (database_url, False)):
        connection = await connect(read_database_url(url))
        try:
            assert await behind_pooler(connection) is expected
        finally:
            await connection.close()


async def test_a_pooler_that_comes_between_costs_a_hold_and_no_more(database_url: str) -> None:
    """A lost statement holds the stage once; from then on statements have no names, and nothing is called away."""
    with pgbouncer(database_url, settings=FORGETS_STATEMENTS) as url:
        database = Database(url, size=4)
        database._pooled = False  # as it was found before somebody put the pooler there
        lost = await _messages_until_it_works(database)
    assert lost
    assert all("pooler" in message and "away" not in message for message in lost)


async def _messages_until_it_works(database: Database) -> list[str]:
    lost: list[str] = []

    async def works() -> bool:
        try:
            await asyncio.gather(*(_work(database, 10) for _ in range(4)))
        except DependencyDown as error:
            lost.append(str(error))
            return False
        return True

    try:
        await wait_for(works, deadline_s=30, what="transactions to run through the pooler")
    finally:
        await database.close()
    return lost


async def test_the_schema_is_made_through_a_pooler(empty_database_url: str) -> None:
    """Migrations run in one transaction, with a lock that ends with it; many may run at once."""
    with pgbouncer(empty_database_url) as url:
        await asyncio.gather(*(upgrade(url) for _ in range(3)))
    connection = await asyncpg.connect(empty_database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM teamfit_schema_version") == 1
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("settings", "parameters", "says"),
    [
        ({}, "?search_path=public", "the pooler before Postgres refuses: unsupported startup parameter: search_path"),
        ({"pool_mode": "statement"}, "", "the pooler before Postgres refuses: transaction blocks not allowed"),
        ({"max_client_conn": "0"}, "", "the pooler before Postgres refuses: no more connections allowed"),
    ],
)
async def test_what_a_pooler_refuses_is_not_an_outage_of_postgres(
    database_url: str, settings: dict[str, str], parameters: str, says: str
) -> None:
    """Its own words are passed on, with where to look; nobody is sent to look for a server that is well."""
    with pgbouncer(database_url, settings=settings) as url:
        database = Database(url + parameters, size=1)
        try:
            with pytest.raises(DependencyDown) as raised:
                await _work(database, 1)
        finally:
            await database.close()
    assert str(raised.value).startswith(says)


async def test_commands_read_through_a_pooler_and_a_rebuild_asks_for_the_server(
    pooled_url: str, database: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reads in one transaction works; what keeps temporary tables over several says in a line what to do."""
    monkeypatch.setenv("DATABASE_URL", pooled_url)
    for command, code, says in (("verify", 0, "invariants hold"), ("projection rebuild", 1, "Postgres itself")):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "infra.cli", *command.split()),
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
        assert (process.returncode, says in printed.decode()) == (code, True), printed.decode()
        assert "Traceback" not in printed.decode()
