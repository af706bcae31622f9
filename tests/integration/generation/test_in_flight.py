"""`max_in_flight` holds at the provider itself, whichever workers are killed."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from infra.local.llm.server import create_app
from infra.postgres import Database
from streams.jobs.dispatch import enter
from streams.jobs.topics import JOB_ACCEPTED, record
from tests.integration.generation.conftest import ORGANIZATION, Pool, WorkerStarter, accepted, entered
from tests.served import served
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("team")

_MOST = 3
_JOBS = 9
# Longer than a lease: the calls of the killed are under way still when their runs are taken over.
_CALL_S = 3.0
_WISH = re.compile(r"wish-\d+")


@dataclass
class Call:
    """One call at the provider. `wish` tells the job, `key` the worker; it ends when the provider has its answer."""

    wish: str
    key: str
    began_at: float
    ended_at: float = float("inf")


@asynccontextmanager
async def provider() -> AsyncIterator[tuple[str, list[Call]]]:
    """Serve an endpoint that goes on with a call whose caller has died; yield its address and what it has seen."""
    calls: list[Call] = []

    @web.middleware
    async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
        found = _WISH.search(await request.text())
        if found is None:
            return await handler(request)  # a probe is no job's
        call = Call(found[0], request.headers["Authorization"].split()[-1], time.time())
        calls.append(call)
        try:
            return await handler(request)
        finally:
            call.ended_at = time.time()

    app = create_app(latency_s=_CALL_S)
    app.middlewares.append(watch)
    async with served(app) as address:
        yield f"{address}/v1", calls


async def taken_over(database: Pool) -> dict[str, list[datetime]]:
    """Return when each job's attempts were recorded as taken over, in their order."""
    rows = await database.fetch(
        "SELECT told.words AS wish, array_agg(call.finished_at ORDER BY call.attempt) AS moments"
        " FROM generation_attempts AS call JOIN wishes AS told USING (job_id) WHERE call.state = 'abandoned' GROUP BY 1"
    )
    return {row["wish"]: row["moments"] for row in rows}


def most_at_once(calls: list[Call], over: dict[str, list[datetime]]) -> int:
    """Return how many calls were under way at once, those not counted that were on record as taken over by then."""
    most = 0
    for now in calls:
        under_way = 0
        for one in calls:
            nth = [other for other in calls if other.wish == one.wish].index(one)
            moments = over.get(one.wish, [])
            is_over = nth < len(moments) and moments[nth].timestamp() <= now.began_at
            under_way += one.began_at <= now.began_at < one.ended_at and not is_over
        most = max(most, under_way)
    return most


async def test_no_more_calls_than_may_be_are_made_though_workers_are_killed(
    start_worker: WorkerStarter, database: Pool, database_url: str
) -> None:
    """Four workers share three slots of an organization; two are killed in their calls, and nothing is beyond three.

    A call of a worker that has died goes on at the provider. It counts no more once its run is taken over, which is on
    record before the next call begins.
    """
    await database.execute(
        "INSERT INTO subscriptions (organization_id, plan, status, monthly_quota, max_in_flight)"
        " VALUES ($1, 'team', 'active', 1000, $2)",
        *(ORGANIZATION, _MOST),
    )
    events = [accepted(requirements=f"wish-{number}. A remote hour.") for number in range(_JOBS)]
    await database.execute("CREATE TABLE wishes (job_id uuid, words text)")
    await database.executemany(
        "INSERT INTO wishes VALUES ($1, $2)", [(event.job_id, f"wish-{nth}") for nth, event in enumerate(events)]
    )
    pool = Database(database_url, size=1)
    for event in events:
        await entered(pool, event)
    async with pool.transaction() as connection:
        await enter(connection, [record(JOB_ACCEPTED, event) for event in events])
    await pool.close()
    try:
        async with provider() as (url, calls):
            workers = {}
            for key in ("w1", "w2", "w3", "w4"):
                # The provider would notice at the next word of a stream that nobody reads it.
                variables = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": key, "TEAMFIT_LLM_STREAM": "false"}
                workers[key] = await start_worker(variables=variables, lease="1s")
            for _ in range(2):

                def busy() -> set[str]:
                    """Return the live workers that have a call under way."""
                    return {one.key for one in calls if one.ended_at == float("inf")} & workers.keys()

                await wait_for(busy, deadline_s=60, what="a worker to call")
                victim = workers.pop(busy().pop())
                victim.kill()
                await victim.wait()
            finished = "SELECT count(*) = $1 FROM job_outcomes WHERE outcome = 'completed'"
            await wait_for(lambda: database.fetchval(finished, _JOBS), deadline_s=120, what="all jobs to complete")
            over = await taken_over(database)
        assert len(calls) == await database.fetchval("SELECT count(*) FROM generation_attempts")
        assert most_at_once(calls, {}) > _MOST
        assert most_at_once(calls, over) == _MOST
        assert await database.fetchval("SELECT count(*) FROM customized_activities") == 3 * _JOBS
    finally:
        await database.execute("DROP TABLE wishes")
