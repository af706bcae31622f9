"""Lists of jobs over HTTP and in the terminal: each sees its own, page by page."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import uuid4

import aiohttp
import pytest

from streams.jobs.admission import period_of
from tests.api_server import api_settings, bearer, serving
from tests.commands import Run
from tests.conftest import Pool
from tests.integration.pipeline_scene import Pipeline, pipeline_on
from tests.integration.quota_scene import add_organization


@pytest.fixture
async def pipeline(database: Pool, database_url: str) -> AsyncIterator[Pipeline]:
    """Stages with two organizations."""
    for name in ("acme", "birch"):
        await add_organization(database, name, monthly_quota=50)
    async with pipeline_on(database_url) as pipeline:
        yield pipeline


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """An API on the test's own database; lists need no broker."""
    async with serving(api_settings(database_url=database_url)) as session:
        yield session


async def test_links_lead_through_all_jobs_of_the_organization(pipeline: Pipeline, api: aiohttp.ClientSession) -> None:
    """Newest first, each once, with the filter kept from page to page; another organization's are on no page."""
    own = [await pipeline.accept("acme") for _ in range(5)]
    await pipeline.accept("birch")
    address: str | None = "/api/jobs?limit=2&status=pending"
    seen: list[str] = []
    while address:
        async with api.get(address, headers=bearer("acme")) as answer:
            assert answer.status == 200, await answer.text()
            page = await answer.json()
            seen += [job["job_id"] for job in page["jobs"]]
            address = str(answer.links["next"]["url"]) if "next" in answer.links else None
    assert sorted(seen) == sorted(str(job.job_id) for job in own)
    async with api.get("/api/jobs", headers=bearer("nobody")) as answer:
        assert (await answer.json())["jobs"] == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("cursor=nowhere", "invalid_request"),
        ("limit=0", "invalid_request"),
        ("limit=101", "invalid_request"),
        ("status=lost", "invalid_request"),
        ("colour=red", "invalid_request"),
        ("organization_id=birch", "invalid_request"),
        ("since=yesterday", "invalid_request"),
    ],
)
async def test_a_wrong_query_is_refused(api: aiohttp.ClientSession, query: str, code: str) -> None:
    """The answer names the parameter; nobody asks for another organization's jobs."""
    async with api.get(f"/api/jobs?{query}", headers=bearer()) as answer:
        problem = await answer.json()
    assert (answer.status, problem["code"]) == (422, code)
    assert query.partition("=")[0] in problem["detail"]


async def test_usage_adds_up(pipeline: Pipeline, api: aiohttp.ClientSession, database: Pool) -> None:
    """Quota, what is held, used and left, and what waits; an organization without a subscription has none."""
    await pipeline.complete(await pipeline.accept("acme"))
    await pipeline.accept("acme")
    # The stages' clock stands in a month of its own.
    await database.execute("UPDATE quota_usage SET period = $1", period_of(datetime.now(UTC)))
    async with api.get("/api/usage", headers=bearer("acme")) as answer:
        usage = await answer.json()
    assert (usage["monthly_quota"], usage["reserved"], usage["charged"], usage["left"]) == (50, 1, 1, 48)
    assert usage["waiting"] == {"number": 1, "more": False}
    assert usage["in_flight"] == {"number": 0, "more": False}
    assert (usage["budget"], usage["months"]) == (None, [])
    await database.execute("UPDATE subscriptions SET budget = 7000000 WHERE organization_id = 'acme'")
    await database.execute("INSERT INTO llm_prices VALUES ('m', now() - interval '1 day', 1, 1, 'USD')")
    await database.execute(
        "INSERT INTO llm_usage"
        " (organization_id, period, calls, prompt_tokens, completion_tokens, maybe_billed_calls, cost)"
        " VALUES ('acme', '2031-04', 3, 5, 7, 1, 1234567), ('rival', '2031-04', 1, 1, 1, 0, 99)"
    )
    operator = bearer("ops", "operator")
    own = ("/api/usage", bearer("acme"))
    for route, headers in (own, ("/api/ops/usage?organization_id=acme", operator)):
        async with api.get(route, headers=headers) as answer:
            usage = await answer.json()
        assert (usage["organization_id"], usage["budget"], usage["budget_kind"]) == ("acme", 7_000_000, "hard")
        (month,) = usage["months"]
        assert (month["cost"], month["currency"], month["calls"]) == (1_234_567, "USD", 3)
    async with api.get("/api/usage", headers=bearer("nobody")) as answer:
        unknown = await answer.json()
    assert (unknown["monthly_quota"], unknown["left"], unknown["charged"]) == (None, None, 0)
    async with api.get("/api/ops/usage?organization_id=nobody", headers=operator) as answer:
        assert (answer.status, (await answer.json())["code"]) == (404, "organization_not_found")


@pytest.mark.parametrize(
    ("route", "scope"),
    [("/api/jobs", "operator"), ("/api/usage", "operator"), ("/api/ops/jobs", "jobs"), ("/api/ops/schedule", "jobs")],
)
async def test_another_scope_is_refused(api: aiohttp.ClientSession, route: str, scope: str) -> None:
    """Customers do not search everybody's jobs, and an operator's token is no customer's."""
    async with api.get(route, headers=bearer("acme", scope)) as answer:
        assert (answer.status, (await answer.json())["code"]) == (403, "insufficient_scope")
    async with api.get(route) as answer:
        assert answer.status == 401


async def test_operators_find_jobs_of_all_over_http(pipeline: Pipeline, api: aiohttp.ClientSession) -> None:
    """With the number of all that fit, and a cursor to go on."""
    jobs = [await pipeline.accept("acme"), await pipeline.accept("birch")]
    operator = bearer("ops", "operator")
    async with api.get("/api/ops/jobs?limit=1&order=oldest", headers=operator) as answer:
        first = await answer.json()
    async with api.get(f"/api/ops/jobs?limit=1&order=oldest&cursor={first['next']}", headers=operator) as answer:
        second = await answer.json()
    assert first["total"] == {"number": 2, "more": False}
    assert second["next"] is None
    assert {page["jobs"][0]["job_id"] for page in (first, second)} == {str(job.job_id) for job in jobs}


async def test_operators_see_what_is_published_later(api: aiohttp.ClientSession, database: Pool) -> None:
    """What is overdue is counted; a cursor that is none is refused."""
    await database.execute(
        "INSERT INTO scheduled_events (id, topic, due_at, reason) VALUES ($1, 'job-requests', now(), 'retry')", uuid4()
    )
    operator = bearer("ops", "operator")
    async with api.get("/api/ops/schedule", headers=operator) as answer:
        schedule = await answer.json()
    assert (schedule["total"]["number"], schedule["overdue"]["number"], schedule["next"]) == (1, 1, None)
    assert schedule["events"][0]["reason"] == "retry"
    async with api.get("/api/ops/schedule?cursor=nowhere", headers=operator) as answer:
        assert answer.status == 422


async def test_the_terminal_lists_them_too(pipeline: Pipeline, teamfit: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same filters, as a table or as JSON, page by page."""
    own, others = await pipeline.accept("acme"), await pipeline.accept("birch")
    monkeypatch.setenv("COLUMNS", "250")

    async def listed(*arguments: str) -> str:
        said = await teamfit("jobs", "list", *arguments)
        assert said.exit_code == 0, said.output
        return said.stdout

    table = await listed("--organization", "acme")
    assert str(own.job_id) in table
    assert str(others.job_id) not in table
    assert "1 jobs, 1 shown." in table
    page = json.loads(await listed("--json", "--limit", "1"))
    following = json.loads(await listed("--json", "--cursor", page["next"]))
    assert page["total"] == {"number": 2, "more": False}
    assert {one["job_id"] for one in page["jobs"] + following["jobs"]} == {str(own.job_id), str(others.job_id)}
    wrong = await teamfit("jobs", "list", "--trace", "x")
    assert wrong.exit_code == 2
