"""What one caller does over HTTP, and what a server answers oddly, is nobody else's outage."""

import asyncio
from collections.abc import Sequence

import aiohttp
import asyncpg
import pytest
from fastapi import FastAPI

from consumers.projection.handlers import Projection
from infra.api import failures
from infra.postgres import Database
from producers import broker
from producers.broker import Broker
from streams.delivery.deliveries import Record
from streams.delivery.publisher import BrokerDown
from tests.api_server import api_settings, bearer, serving, serving_app
from tests.conftest import Pool
from tests.facts import JOB, requested
from tests.waiting import wait_for

PLAN = "/api/ops/replay/plans/7c9e6679-7425-40de-944b-e07fc1f90ae7/apply"


async def test_replays_take_no_connection_from_readers(database_url: str, database: Pool) -> None:
    """Fourteen plans applied at once starved the pool: a reader waited for ten seconds. Now it waits for none."""
    settings = api_settings(database_url=database_url).model_copy(update={"database_pool_size": 2})

    async def apply(api: aiohttp.ClientSession) -> str:
        async with api.post(PLAN, json={"rate": 1}, headers=bearer("teamfit", "operator")) as answer:
            return str((await answer.json(content_type=None))["code"])

    async def waiting() -> bool:
        found = await database.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return bool(found)

    async with serving(settings) as api, database.acquire() as blocker:
        transaction = blocker.transaction()
        await transaction.start()
        await blocker.execute("LOCK TABLE replay_plans IN ACCESS EXCLUSIVE MODE")
        applied = [asyncio.create_task(apply(api)) for _ in range(14)]
        await wait_for(waiting, what="a plan to wait for its row")
        async with api.get(f"/api/jobs/{JOB}", headers=bearer()) as answer:
            assert answer.status == 404
        assert not all(one.done() for one in applied)
        await transaction.rollback()
        assert set(await asyncio.gather(*applied)) <= {"plan_not_found", "too_busy"}


async def test_opening_streams_without_end_is_refused(database_url: str) -> None:
    """After a burst the answer is 429 with the time to wait, and another organization's streams go on."""
    projection = Database(database_url, size=1)
    await Projection(projection).project([requested()])
    await projection.close()
    async with serving(api_settings(database_url=database_url)) as api:
        statuses: list[int] = []
        while 429 not in statuses:
            async with api.get(f"/api/jobs/{JOB}/events", headers=bearer()) as answer:
                statuses.append(answer.status)
                if answer.status == 429:
                    assert (await answer.json(content_type=None))["code"] == "too_many_streams"
                    assert int(answer.headers["Retry-After"]) >= 1
            assert len(statuses) < 2_000
        assert statuses.count(200) >= 50
        async with api.get(f"/api/jobs/{JOB}/events", headers=bearer("birch")) as answer:
            assert answer.status == 404
        async with api.get(f"/api/jobs/{JOB}", headers=bearer()) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (asyncpg.InsufficientPrivilegeError, 503),
        (asyncpg.ProtocolViolationError, 503),
        (asyncpg.InvalidSQLStatementNameError, 503),
        (asyncpg.DuplicatePreparedStatementError, 503),
        (asyncpg.ReadOnlySQLTransactionError, 503),
        (asyncpg.TooManyConnectionsError, 503),
        (asyncpg.DiskFullError, 503),
        (asyncpg.InternalServerError, 503),
        (asyncpg.QueryCanceledError, 503),
        (asyncpg.DatatypeMismatchError, 500),
        (asyncpg.CharacterNotInRepertoireError, 500),
        (asyncpg.UniqueViolationError, 500),
    ],
)
async def test_what_postgres_says_of_itself_is_an_outage(error: type[asyncpg.PostgresError], status: int) -> None:
    """503 with `Retry-After` for a server, or a pooler, that answers oddly; 500 with an ID for a statement of ours."""
    app = FastAPI()
    failures.install(app)

    @app.get("/")
    async def odd() -> None:
        raise error("swordfish")

    async with serving_app(app) as api, api.get("/") as answer:
        document = await answer.json(content_type=None)
    assert answer.status == status
    assert document["code"] == ("database_unavailable" if status == 503 else "internal_error")
    assert ("Retry-After" in answer.headers, "error_id" in document) == (status == 503, status == 500)
    assert "swordfish" not in str(document)


async def test_whatever_the_brokers_client_raises_is_an_outage(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that the client cannot read says nothing against the request: the record is kept, and sent again."""

    class Odd:
        def __init__(self, _app: object) -> None:
            pass

        async def publish(self, _records: Sequence[Record]) -> None:
            raise ValueError("not an entry ID")

    monkeypatch.setattr(broker, "FaustPublisher", Odd)
    opened = Broker(api_settings(database_url="postgresql://127.0.0.1:1/none", broker_url=redis_url), name="odd")
    with pytest.raises(BrokerDown, match="answers oddly: ValueError") as raised:
        await opened.publish([])
    await opened.close()
    assert raised.value.maybe_written
