"""How fast an organization may ask, and how many of its jobs may wait: by HTTP, and straight into the stream."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from uuid import uuid4

import aiohttp
import pytest

from consumers.quota.admission import Admissions
from infra.postgres import Database
from streams.jobs.events import JobAccepted, JobEvent, JobId, JobRejected, JobRequested
from streams.jobs.intake_limits import CODE
from tests.api_server import UNUSED_URL, api_settings, bearer, serving
from tests.conftest import Pool
from tests.integration.quota_scene import ManualClock, facts, request
from tests.organizations import add_organizations

ROUTE = "/api/activities/generate-custom"
BODY = {"organization_id": "acme", "team_id": "acme-team", "requirements": "Two hours outdoors"}


@pytest.fixture(autouse=True)
async def customers(database: Pool) -> None:
    """The organizations of the TEAMFIT backend."""
    await add_organizations(database)


@pytest.fixture
async def two_apis(database_url: str, redis_url: str) -> AsyncIterator[Sequence[aiohttp.ClientSession]]:
    """Two API processes' apps on the same servers."""
    settings = api_settings(database_url=database_url, broker_url=redis_url)
    async with serving(settings) as one, serving(settings) as other:
        yield one, other


@pytest.fixture
async def quota(database_url: str) -> AsyncIterator[Admissions]:
    """The quota stage's admission."""
    stage = Database(database_url, size=4)
    yield Admissions(stage, ManualClock(), trust_threshold=0.5)
    await stage.close()


async def limit(database: Pool, column: str, value: int | None) -> None:
    """Set a limit of acme's own."""
    await database.execute(f"UPDATE subscriptions SET {column} = $1 WHERE organization_id = 'acme'", value)


async def ask(api: aiohttp.ClientSession, **headers: str) -> tuple[int, str | None, Mapping[str, str]]:
    """Ask for activities; return the status, the code of a problem, and the headers."""
    async with api.post(ROUTE, json=BODY, headers={**bearer(), **headers}) as answer:
        return answer.status, (await answer.json(content_type=None)).get("code"), answer.headers


def straight() -> JobRequested:
    """A request that an upstream service writes into the stream."""
    return request().model_copy(update={"source": "upstream"})


def codes(events: Sequence[JobEvent]) -> list[str | None]:
    """Why each was rejected; None: it was accepted."""
    return [one.data.code if isinstance(one, JobRejected) else None for one in events]


async def test_all_api_processes_share_one_limit(two_apis: Sequence[aiohttp.ClientSession], database: Pool) -> None:
    """Of twenty at once, by two processes, as many are taken as the plan allows; others are told when to come again."""
    await limit(database, "requests_per_minute", 5)
    answers = await asyncio.gather(*(ask(two_apis[place % 2]) for place in range(20)))
    assert Counter((status, code) for status, code, _ in answers) == {(202, None): 5, (429, CODE): 15}
    assert await database.fetchval("SELECT count(*) FROM job_requests") == 5
    for status, _, headers in answers:
        assert headers["RateLimit-Policy"] == '"requests";q=5;w=60'
        if status == 429:
            assert headers["RateLimit"] == f'"requests";r=0;t={headers["Retry-After"]}'
            assert 1 <= int(headers["Retry-After"]) <= 12
    left = sorted(headers["RateLimit"].split(";")[1] for status, _, headers in answers if status == 202)
    assert left == ["r=0", "r=1", "r=2", "r=3", "r=4"]


async def test_the_bucket_fills_with_time(two_apis: Sequence[aiohttp.ClientSession], database: Pool) -> None:
    """As much time as one request takes to come back gives one, and no more; an hour gives a minute's worth."""
    await limit(database, "requests_per_minute", 2)
    api = two_apis[0]

    async def taken() -> int:
        return [(await ask(api))[0] for _ in range(4)].count(202)

    assert await taken() == 2
    await database.execute("UPDATE intake_rates SET full_at = full_at - interval '30 seconds'")
    assert await taken() == 1
    await database.execute("UPDATE intake_rates SET full_at = full_at - interval '1 hour'")
    assert await taken() == 2
    status, _, headers = await ask(api)
    assert (status, int(headers["Retry-After"])) == (429, 30)


async def test_cancelling_counts_as_a_request(two_apis: Sequence[aiohttp.ClientSession], database: Pool) -> None:
    """Else cancelling and asking again would have no limit."""
    await limit(database, "requests_per_minute", 1)
    assert (await ask(two_apis[0]))[0] == 202
    async with two_apis[1].post(f"/api/jobs/{uuid4()}/cancel", headers=bearer()) as answer:
        assert (answer.status, (await answer.json())["code"]) == (429, CODE)


async def test_nobody_asks_at_anothers_cost(two_apis: Sequence[aiohttp.ClientSession], database: Pool) -> None:
    """One that may make no request at all is no hindrance to others."""
    await limit(database, "requests_per_minute", 0)
    assert (await ask(two_apis[0]))[1] == CODE
    async with two_apis[0].post(
        ROUTE, json={**BODY, "organization_id": "rival", "team_id": "rival-team"}, headers=bearer("rival")
    ) as answer:
        assert answer.status == 202
        assert answer.headers["RateLimit-Policy"] == '"requests";q=60000;w=60'


@pytest.mark.parametrize(("own", "of_plan", "effective"), [(7, 3, 7), (None, 3, 3), (None, None, 60_000), (-1, 3, 0)])
async def test_an_organizations_own_limit_goes_before_its_plans(
    database: Pool, own: int | None, of_plan: int | None, effective: int
) -> None:
    """Then comes the plan's, then the default."""
    await limit(database, "requests_per_minute", own)
    await database.execute("INSERT INTO plan_shares (plan, requests_per_minute) VALUES ('pro', $1)", of_plan)
    assert await database.fetchval("SELECT per_minute FROM intake_terms('acme')") == effective


async def test_without_postgres_nothing_is_taken_in() -> None:
    """No limit can be kept then, and no request recorded: the answer is the outage's."""
    settings = api_settings(database_url="postgresql://nobody@127.0.0.1:1/none", broker_url=UNUSED_URL)
    async with serving(settings) as api:
        status, code, headers = await ask(api)
    assert (status, code, headers["Retry-After"]) == (503, "database_unavailable", "5")


async def test_what_comes_by_the_stream_is_rejected_with_the_same_code(quota: Admissions, database: Pool) -> None:
    """Of a batch the first are admitted. A repeat is told the same again, and takes nothing."""
    await limit(database, "requests_per_minute", 3)
    asked = [straight() for _ in range(5)]
    told = facts(await quota.admit(asked))
    assert codes(told) == [None, None, None, CODE, CODE]
    assert facts(await quota.admit(asked)) == told
    assert codes(facts(await quota.admit([straight()]))) == [CODE]


async def test_what_the_intake_took_in_is_not_counted_again(quota: Admissions, database: Pool) -> None:
    """Nor is a replay."""
    await limit(database, "requests_per_minute", 1)
    mine = [request() for _ in range(3)]
    again = straight().model_copy(update={"run": 2})
    assert codes(facts(await quota.admit([*mine, again, straight()]))) == [None] * 5


async def test_no_more_runs_wait_than_may(
    quota: Admissions, two_apis: Sequence[aiohttp.ClientSession], database: Pool
) -> None:
    """By the stream the later ones are rejected; by HTTP one is refused at once, unless it is a repeat."""
    await limit(database, "max_waiting", 2)
    again = request(job_id=JobId(uuid4()), run=2)
    assert codes(facts(await quota.admit([request(), request(), request()]))) == [None, None, CODE]
    assert codes(facts(await quota.admit([again]))) == [None]
    assert (await ask(two_apis[0]))[:2] == (429, CODE)
    await limit(database, "max_waiting", None)
    assert (await ask(two_apis[0], **{"Idempotency-Key": "k"}))[0] == 202
    await limit(database, "max_waiting", 2)
    status, code, headers = await ask(two_apis[0], **{"Idempotency-Key": "k"})
    assert (status, code) == (202, None)
    status, code, headers = await ask(two_apis[0], **{"Idempotency-Key": "another"})
    assert (status, code, headers["Retry-After"]) == (429, CODE, "60")


async def test_released_runs_wait_no_more(quota: Admissions, database: Pool) -> None:
    """What waits is counted whether the dispatcher has seen it or not."""
    await limit(database, "max_waiting", 2)
    assert codes(facts(await quota.admit([request(), request()]))) == [None, None]
    await database.fetch("SELECT dispatch(1, false)")
    told = facts(await quota.admit([request(), request()]))
    assert [isinstance(one, JobAccepted) for one in told] == [True, False]


@pytest.mark.parametrize("ahead", ["2 minutes", "1 hour", "40 days"])
async def test_a_clock_that_is_set_back_keeps_nobody_out(
    two_apis: Sequence[aiohttp.ClientSession], quota: Admissions, database: Pool, ahead: str
) -> None:
    """What a bucket says of a later time was written before the step; after it, the limit holds again."""
    await limit(database, "requests_per_minute", 2)
    await ask(two_apis[0])
    await database.execute("UPDATE intake_rates SET full_at = full_at + $1::text::interval", ahead)
    assert [(await ask(two_apis[0]))[0] for _ in range(3)] == [202, 202, 429]
    await database.execute("UPDATE intake_rates SET full_at = full_at + $1::text::interval", ahead)
    assert codes(facts(await quota.admit([straight() for _ in range(3)]))) == [None, None, CODE]
