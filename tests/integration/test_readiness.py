"""Readiness over HTTP: green means that a request would be taken; red says which dependency is of no use, and why."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis
from redis.exceptions import ResponseError

from infra.local.servers import Valkey, start_valkey
from tests.api_server import api_settings, bearer, serving
from tests.chaos.pipeline.proxy import Proxy
from tests.conftest import Pool
from tests.organizations import add_organizations
from tests.waiting import wait_for

ROUTE = "/api/activities/generate-custom"
BODY = {"organization_id": "acme", "team_id": "acme-team", "requirements": "Two hours outdoors"}


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A Valkey that the test may spoil."""
    with start_valkey(append_only=False, options=("--enable-protected-configs", "yes")) as server:
        yield server
        with redis.Redis.from_url(server.url) as client:
            client.config_set("save", "")  # without a disk it would refuse to stop


async def readiness(api: aiohttp.ClientSession) -> tuple[int, dict[str, str]]:
    """Return the status of /readyz and its reasons."""
    async with api.get("/readyz") as answer:
        return answer.status, (await answer.json())["reasons"]


async def becomes(api: aiohttp.ClientSession, status: int, reasons: dict[str, str]) -> None:
    """Wait until /readyz says this: an answer may be a second old."""

    async def said() -> bool:
        assert await readiness(api) == (status, reasons)
        return True

    await wait_for(said, what=f"/readyz to say {status} {reasons}")


async def recorded(database: Pool) -> int:
    """How much the intake has left in Postgres."""
    count: int = await database.fetchval(
        "SELECT (SELECT count(*) FROM job_requests) + (SELECT count(*) FROM scheduled_events)"
    )
    return count


def full(client: "redis.Redis") -> None:
    """No memory is left, and nothing may be evicted."""
    client.config_set("maxmemory", 1)


def short_of_replicas(client: "redis.Redis") -> None:
    """Not enough replicas would have a copy."""
    client.config_set("min-replicas-to-write", 1)


def a_replica(client: "redis.Redis") -> None:
    """Another server became the primary."""
    client.replicaof("127.0.0.1", "1")


def out_of_disk(client: "redis.Redis") -> None:
    """The last snapshot could not be written."""
    client.config_set("save", "3600 1")
    with tempfile.TemporaryDirectory() as folder:
        client.config_set("dir", folder)
        Path(folder, "dump.rdb").mkdir()  # a name that no file can be moved to, for root neither
        client.set("changed", 1)
        client.bgsave()
        while client.info("persistence")["rdb_bgsave_in_progress"]:
            pass


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (full, "OutOfMemoryError"),
        (short_of_replicas, "NOREPLICAS"),
        (a_replica, "ReadOnlyError"),
        (out_of_disk, "MISCONF"),
    ],
)
async def test_a_broker_that_takes_no_writes_is_not_ready(
    valkey: Valkey, database_url: str, database: Pool, spoil: Callable[["redis.Redis"], None], why: str
) -> None:
    """It still answers a ping, so readiness used to be green while each request got a 503."""
    await add_organizations(database)
    async with serving(api_settings(database_url=database_url, broker_url=valkey.url)) as api:
        await becomes(api, 200, {})
        with redis.Redis.from_url(valkey.url) as client:
            await asyncio.to_thread(spoil, client)
            await becomes(api, 503, {"broker": f"takes no writes: {why}"})
            async with api.post(ROUTE, json=BODY, headers=bearer()) as answer:
                assert (answer.status, answer.content_type) == (503, "application/problem+json")
                assert (await answer.json())["code"] == "broker_unavailable"
            assert await recorded(database) == 0
            assert client.exists("job-requests") == 0


async def test_looking_at_the_broker_writes_nothing(valkey: Valkey, database_url: str) -> None:
    """Asked as often as one likes, readiness leaves no key behind, and nothing for replicas or the append-only file."""
    async with serving(api_settings(database_url=database_url, broker_url=valkey.url)) as api:
        await becomes(api, 200, {})
        with redis.Redis.from_url(valkey.url) as client:
            info: Any = client.info("persistence")
            assert (client.dbsize(), info["rdb_changes_since_last_save"]) == (0, 0)


async def test_a_broker_that_takes_writes_again_is_ready(valkey: Valkey, database_url: str) -> None:
    """Red ends as soon as the cause does, without a restart."""
    async with serving(api_settings(database_url=database_url, broker_url=valkey.url)) as api:
        with redis.Redis.from_url(valkey.url) as client:
            short_of_replicas(client)
            await becomes(api, 503, {"broker": "takes no writes: NOREPLICAS"})
            client.config_set("min-replicas-to-write", 0)
        await becomes(api, 200, {})


async def test_a_database_that_takes_no_writes_is_not_ready(database_url: str, database: Pool, redis_url: str) -> None:
    """A session that may only read, as on a standby or a server that was set so: 503, and nothing is published."""
    await add_organizations(database)
    name = database_url.rpartition("/")[2].partition("?")[0]
    await database.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    async with serving(api_settings(database_url=database_url, broker_url=redis_url)) as api:
        await becomes(api, 503, {"database": "takes no writes: read only"})
        async with api.post(ROUTE, json=BODY, headers=bearer()) as answer:
            assert (answer.status, answer.content_type) == (503, "application/problem+json")
            assert (await answer.json())["code"] == "database_unavailable"
    assert await recorded(database) == 0
    with redis.Redis.from_url(redis_url) as client:
        assert client.exists("job-requests") == 0


async def test_a_database_without_the_schema_is_not_ready(empty_database_url: str, redis_url: str) -> None:
    """A deploy that forgot `teamfit migrate` is red before anybody is sent to it."""
    async with serving(api_settings(database_url=empty_database_url, broker_url=redis_url)) as api:
        await becomes(api, 503, {"database": "takes no writes: not migrated"})


async def test_dependencies_that_do_not_answer_do_not_hold_up_readiness(
    valkey: Valkey, database_url: str, postgres_server: Any
) -> None:
    """Both swallow what they are sent: each is named, in the time that an orchestrator gives a probe."""
    async with Proxy(valkey.port) as broker, Proxy(postgres_server.port) as postgres:
        through = database_url.replace(f":{postgres_server.port}/", f":{postgres.port}/")
        assert through != database_url
        settings = api_settings(database_url=through, broker_url=f"redis://127.0.0.1:{broker.port}/0?timeout=1s")
        async with serving(settings) as api:
            await becomes(api, 200, {})
            broker.swallow()
            postgres.swallow()

            async def both_are_named() -> bool:
                async with asyncio.timeout(10):
                    status, reasons = await readiness(api)
                return (status, set(reasons)) == (503, {"broker", "database"})

            await wait_for(both_are_named, what="readiness to name both")
            broker.pass_on()
            postgres.pass_on()
            await becomes(api, 200, {})


async def test_many_who_ask_share_one_look(valkey: Valkey, database_url: str) -> None:
    """A hundred probes at a time are one question to the broker."""
    async with serving(api_settings(database_url=database_url, broker_url=valkey.url)) as api:
        with redis.Redis.from_url(valkey.url) as client:
            await asyncio.gather(*(readiness(api) for _ in range(100)))
            stats: Any = client.info("commandstats")
        # It is the second of two at most, if the first look grew old meanwhile.
        assert stats["cmdstat_xadd"]["rejected_calls"] + stats["cmdstat_xadd"]["calls"] <= 2


def test_the_probe_relies_on_how_the_server_answers(valkey: Valkey) -> None:
    """An ID that no stream takes is refused in these words, also by a stream that has entries."""
    with redis.Redis.from_url(valkey.url) as client:
        for _ in range(2):
            with pytest.raises(ResponseError, match=r"must be greater than 0-0"):
                client.execute_command("XADD", "stream", "0-0", "probe", "")
            client.xadd("stream", {"a": "b"})
