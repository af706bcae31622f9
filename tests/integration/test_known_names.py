"""A filter that names an organization or a team that nobody knows says so, by page, command and API."""

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from infra.api import create_api
from infra.api.console import create_app
from infra.console.sessions import Sessions
from infra.operations.job_search import JobFilter, list_jobs
from infra.postgres import Database
from infra.settings import Settings
from streams.jobs.known_names import unknown_names
from tests.api_server import api_settings, bearer, serving_app
from tests.commands import commands
from tests.conftest import Pool

MEANT = "organization acmee: not known; did you mean `acme`?"


@pytest.fixture
async def settings(database: Pool, database_url: str, redis_url: str) -> Settings:
    """Settings of servers that know two organizations, and jobs of a third."""
    for organization in ("acme", "birch"):
        await database.execute(
            "INSERT INTO organizations (id, name) VALUES ($1, $1) ON CONFLICT DO NOTHING", organization
        )
    await database.execute(
        "INSERT INTO teams (id, organization_id, name, size) VALUES ('acme-reds', 'acme', 'Reds', 8)"
    )
    await database.execute(
        "INSERT INTO customization_jobs (job_id, organization_id, team_id, status, run, created_at, updated_at) "
        "VALUES (gen_random_uuid(), 'gone', 'gone-blues', 'completed', 1, now(), now())"
    )
    return api_settings(database_url=database_url, broker_url=redis_url)


@pytest.fixture
async def books(settings: Settings) -> AsyncIterator[Database]:
    """The database of these settings."""
    database = Database(settings.database_url, size=1)
    yield database
    await database.close()


@pytest.mark.parametrize(
    ("organization", "team", "told"),
    [
        ("acmee", None, MEANT),
        ("ACME", None, "organization ACME: not known; did you mean `acme`?"),
        ("zzz", None, "organization zzz: not known; check the ID"),
        ("acme", None, None),
        ("gone", None, None),
        (None, "acme-red", "team acme-red: not known; did you mean `acme-reds`?"),
        (None, "gone-blues", None),
        ("birch", "acme-reds", "team acme-reds: is of organization acme, not of birch"),
        ("acmee", "nobody", f"{MEANT}; team nobody: not known; check the ID"),
        ("x" * 1_000, None, f"organization {'x' * 1_000}: not known; check the ID"),
        (None, None, None),
    ],
)
async def test_what_nobody_knows_is_told_with_the_nearest(
    books: Database, organization: str | None, team: str | None, told: str | None
) -> None:
    """One of which jobs are left is known; a team of another organization is told apart from one of nobody."""
    assert await unknown_names(books, organization_id=organization, team_id=team) == told


async def test_an_empty_list_of_those_who_are_known_has_no_notice(books: Database) -> None:
    """A notice is about names alone: nothing that fits is told by the count."""
    page, _ = await list_jobs(books, JobFilter(organization_id="gone"))
    assert (len(page.jobs), page.notice) == (1, None)
    page, _ = await list_jobs(books, JobFilter(organization_id="acme", status="failed"))
    assert (len(page.jobs), page.notice) == (0, None)


async def test_pages_say_it(settings: Settings, books: Database) -> None:
    """The page does, and its live part; what was typed is text."""
    secret = (await Sessions(books).begin("ann", "viewer")).secret
    async with serving_app(create_app(settings), settings) as http:
        for path in ("/jobs", "/failed", "/failed/groups", "/webhooks"):
            for organization, says in (("acmee", MEANT), ("%3Cb%3E", "organization &lt;b&gt;: not known; check")):
                assert says in await _page(http, f"{path}?organization_id={organization}", secret), path
            assert "not known" not in await _page(http, f"{path}?organization_id=acme", secret), path
        async with http.get("/live/jobs?team_id=acme-red", headers=_cookie(secret)) as answer:
            assert await answer.content.readuntil(b"did you mean `acme-reds`?")


async def _page(http: aiohttp.ClientSession, path: str, secret: str) -> str:
    async with http.get(path, headers=_cookie(secret)) as answer:
        assert answer.status == 200
        return await answer.text()


async def test_the_api_says_it(settings: Settings) -> None:
    """It stands beside an empty answer, which has the status that it had."""
    async with serving_app(create_api(settings), settings) as http:
        for path in ("jobs", "failed", "failed/groups", "webhooks"):
            for organization, notice in (("acmee", MEANT), ("acme", None)):
                assert (await _read(http, f"{path}?organization_id={organization}"))["notice"] == notice, path
        assert (await _read(http, "jobs"))["notice"] is None


async def _read(http: aiohttp.ClientSession, path: str) -> dict[str, object]:
    async with http.get(f"/api/ops/{path}", headers=bearer("ops", "operator")) as answer:
        assert answer.status == 200, await answer.text()
        document: dict[str, object] = await answer.json()
        return document


def _cookie(secret: str) -> dict[str, str]:
    return {"Cookie": f"teamfit_console={secret}"}


async def test_commands_say_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes to standard error, so that what programs read is one document as before."""
    teamfit = commands(monkeypatch, DATABASE_URL=settings.database_url, BROKER_URL=settings.broker_url)
    for command in (("jobs", "list"), ("failed", "list"), ("failed", "groups"), ("webhooks", "list")):
        for extra in ((), ("--json",)):
            result = await teamfit(*command, "--organization", "acmee", *extra)
            assert (result.exit_code, result.stderr.strip()) == (0, MEANT), command
            if extra:
                assert json.loads(result.stdout) is not None
        assert (await teamfit(*command, "--organization", "acme")).stderr == "", command
    for command in (("cancel", "plan"), ("replay", "plan"), ("discard", "plan")):
        result = await teamfit(*command, "--organization", "acmee")
        assert (result.exit_code, result.stderr.strip()) == (0, MEANT), command
        assert (await teamfit(*command, "--organization", "acme")).stderr == "", command
    told = json.loads((await teamfit("jobs", "list", "--team", "acme-red", "--json")).stdout)
    assert told["notice"] == "team acme-red: not known; did you mean `acme-reds`?"
