"""Requests while the broker is slow: they wait for each other, and for nobody else's connections."""

import asyncio
from uuid import uuid4

import aiohttp

from infra.local.servers import start_valkey
from tests.api_server import api_settings, bearer, serving
from tests.chaos.pipeline.proxy import Proxy
from tests.conftest import Pool
from tests.organizations import add_organizations
from tests.stream_entries import entries_of
from tests.waiting import wait_for

ROUTE = "/api/activities/generate-custom"
BODY = {"organization_id": "acme", "team_id": "acme-team", "requirements": "Two hours outdoors"}


async def post(api: aiohttp.ClientSession) -> tuple[int, str | None]:
    """Ask for activities; return the status, and the problem's code if it is one."""
    async with api.post(ROUTE, json=BODY, headers=bearer()) as answer:
        if answer.status == 503:
            assert int(answer.headers["Retry-After"]) > 0
        return answer.status, (await answer.json(content_type=None)).get("code")


async def test_a_silent_broker_does_not_take_the_database_from_readers(database_url: str, database: Pool) -> None:
    """Each request holds a connection until the broker has answered. They used to hold all of them.

    Then everybody waited for ten seconds and heard that the database was away. Now reading a job waits for none of the
    requests; each of those is recorded and accepted, or refused by name with nothing recorded.
    """
    await add_organizations(database)
    with start_valkey(append_only=False) as valkey:
        async with Proxy(valkey.port) as broker:
            settings = api_settings(
                database_url=database_url, broker_url=f"redis://127.0.0.1:{broker.port}/0"
            ).model_copy(update={"database_pool_size": 3})
            async with serving(settings) as api:
                assert await post(api) == (202, None)
                broker.swallow()
                posts = [asyncio.create_task(post(api)) for _ in range(20)]
                await wait_for(lambda: _publishing(database), what="requests to wait for the broker")
                async with api.get(f"/api/jobs/{uuid4()}", headers=bearer()) as answer:
                    assert answer.status == 404
                assert not any(one.done() for one in posts)
                answers = await asyncio.gather(*posts)
            broker.pass_on()
    assert set(answers) == {(202, None), (503, "too_busy")}
    accepted = answers.count((202, None))
    assert await database.fetchval("SELECT count(*) FROM job_requests") == 1 + accepted
    # Nobody knows whether the broker has them, so they are published again.
    assert await database.fetchval("SELECT count(*) FROM scheduled_events") == accepted


async def _publishing(database: Pool) -> bool:
    """Whether two requests are recorded and not committed: as many as a pool of three leaves to them."""
    waiting = await database.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
    )
    return bool(waiting >= 2)


async def test_a_slow_broker_is_waited_for(database_url: str, database: Pool) -> None:
    """A broker that takes a fifth of a second for each answer is slow, not away: every request of a burst is taken."""
    await add_organizations(database)
    with start_valkey(append_only=False) as valkey:
        async with Proxy(valkey.port, delay_s=0.2) as broker:
            url = f"redis://127.0.0.1:{broker.port}/0"
            async with serving(api_settings(database_url=database_url, broker_url=url)) as api:
                answers = await asyncio.gather(*(post(api) for _ in range(40)))
        assert answers == [(202, None)] * 40
        assert len(await entries_of(valkey.url, "job-requests")) == 40
