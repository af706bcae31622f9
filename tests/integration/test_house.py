"""The fixtures that every other test stands on."""

import time

import asyncpg
import pytest
from redis.asyncio import Redis

from tests.conftest import Pool
from tests.waiting import wait_for


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_finds_an_empty_broker(redis_url: str, turn: int) -> None:
    """A key that one test leaves behind is not there for the next."""
    async with Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
        await client.set("left behind", turn)


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_finds_the_schema_and_no_rows(database: Pool, turn: int) -> None:
    """A table that one test makes is not there for the next, and the tables of the migrations are."""
    assert await database.fetchval("SELECT to_regclass('left_behind')") is None
    assert await database.fetchval("SELECT to_regclass('customization_jobs')") is not None
    await database.execute(f"CREATE TABLE left_behind AS SELECT {turn} AS turn")


async def test_an_empty_database_has_no_tables(empty_database_url: str) -> None:
    """Tests of the migrations start from nothing."""
    connection = await asyncpg.connect(empty_database_url)
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await connection.close()


async def test_waiting_ends_as_soon_as_the_condition_holds() -> None:
    """`wait_for` returns the value of plain and async conditions, and takes a failed assertion for "not yet"."""
    answers = iter([0, 0, 7])
    assert await wait_for(lambda: next(answers), what="a number") == 7

    tries = iter(range(3))

    async def third_time() -> bool:
        assert next(tries) == 2, "not yet"
        return True

    assert await wait_for(third_time, what="the third try")


async def test_waiting_in_vain_says_for_what_and_what_it_saw() -> None:
    """A deadline that passes names the condition and the last value, so the failure reads without a debugger."""
    start = time.monotonic()
    with pytest.raises(AssertionError, match=r"waiting for the moon after 0\.1 s; last seen: 0"):
        await wait_for(lambda: 0, deadline_s=0.1, what="the moon")
    assert time.monotonic() - start < 5
