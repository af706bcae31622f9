"""The API behind other people's proxies and load balancers."""

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from consumers.projection.handlers import Projection
from infra.api.server import configuration
from infra.postgres import Database
from tests.api_server import api_settings, bearer, serving
from tests.conftest import Pool
from tests.facts import JOB, completed, requested, started
from tests.organizations import add_organizations
from tests.reverse_proxy import PREFIX, proxied

ROUTE = "/api/activities/generate-custom"
GOOD = {"organization_id": "acme", "team_id": "acme-team", "requirements": "Two hours outdoors"}
REWRITINGS: list[Callable[[str], str]] = [
    lambda tag: tag,
    lambda tag: f"W/{tag}",
    lambda tag: f"w/{tag}",
    lambda tag: f'{tag[:-1]}-gzip"',
    lambda tag: f'W/{tag[:-1]}-gzip"',
    lambda tag: f'{tag[:-1]}-br"',
    lambda tag: f'{tag[:-1]};gzip"',
    lambda tag: f'{tag[:-1]};br"',
    lambda tag: f'{tag[:-1]}--gzip"',
    lambda tag: f'{tag[:-1]}:zstd"',
    lambda tag: tag.strip('"'),
]


@pytest.fixture
async def api(database_url: str, database: Pool, redis_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """An API with everything it needs."""
    await add_organizations(database)
    async with serving(api_settings(database_url=database_url, broker_url=redis_url)) as session:
        yield session


@pytest.fixture
async def projection(database_url: str) -> AsyncIterator[Projection]:
    """What moves jobs on."""
    opened = Database(database_url, size=1)
    yield Projection(opened)
    await opened.close()


async def test_a_tag_that_a_proxy_rewrote_still_matches(api: aiohttp.ClientSession, projection: Projection) -> None:
    """304 for each spelling, alone and in lists, in one line or several; another tag and a longer one do not match."""
    await projection.project([requested()])
    address = f"/api/jobs/{JOB}"
    async with api.get(address, headers=bearer()) as answer:
        tag = answer.headers["ETag"]
    for rewritten in [rewrite(tag) for rewrite in REWRITINGS] + ["*"]:
        for known in (rewritten, f'"other", {rewritten}', f'{rewritten} , W/"other"'):
            async with api.get(address, headers={**bearer(), "If-None-Match": known}) as answer:
                assert answer.status == 304, known
    lines = [*bearer().items(), ("If-None-Match", '"other"'), ("If-None-Match", f"W/{tag}")]
    async with api.get(address, headers=lines) as answer:
        assert answer.status == 304
    for other in ('"other"', f'{tag[:-1]}0"', f'"0{tag[1:]}', f'{tag[:-2]}"', "", "W/", '"'):
        async with api.get(address, headers={**bearer(), "If-None-Match": other}) as answer:
            assert answer.status == 200, other


@pytest.mark.parametrize("rewrites_tag", REWRITINGS[1:5:3])
async def test_a_long_poll_through_a_compressing_proxy_waits(
    api: aiohttp.ClientSession, projection: Projection, rewrites_tag: Callable[[str], str]
) -> None:
    """The client sends back what the proxy made of the tag, and is answered when the job has changed, not at once."""
    await projection.project([requested()])
    async with proxied(api, rewrites_tag=rewrites_tag) as client:
        address = f"{PREFIX}/api/jobs/{JOB}"
        async with client.get(address, headers=bearer()) as answer:
            tag = answer.headers["ETag"]
        waiting = {**bearer(), "If-None-Match": tag, "Prefer": "wait=30"}
        poll = asyncio.create_task(client.get(address, headers=waiting))
        await asyncio.wait({poll}, timeout=0.6)
        assert not poll.done()
        await projection.project([started()])
        async with await poll as answer:
            assert (answer.status, (await answer.json())["status"]) == (200, "processing")


@pytest.mark.parametrize(
    ("settings", "adds", "strips_prefix"),
    [
        ({"root_path": PREFIX}, {}, True),
        ({"root_path": PREFIX}, {}, False),
        ({}, {"X-Forwarded-Prefix": f"{PREFIX}/"}, True),
        ({}, {"X-Forwarded-Prefix": PREFIX}, False),
        ({"root_path": "/other"}, {"X-Forwarded-Prefix": PREFIX}, True),
    ],
)
async def test_below_a_prefix_every_address_leads_back(
    database_url: str,
    database: Pool,
    redis_url: str,
    settings: dict[str, str],
    adds: dict[str, str],
    *,
    strips_prefix: bool,
) -> None:
    """Addresses in answers, the docs and openapi.json are right, whether or not the proxy removes the prefix."""
    await add_organizations(database)
    base = api_settings(database_url=database_url, broker_url=redis_url)
    async with (
        serving(base.model_copy(update=settings)) as api,
        proxied(api, adds=adds, strips_prefix=strips_prefix) as client,
    ):
        async with client.post(f"{PREFIX}{ROUTE}", json=GOOD, headers=bearer()) as answer:
            assert answer.status == 202
            assert answer.headers["Location"] == (await answer.json())["status_url"]
            address = answer.headers["Location"]
        async with client.get(address, headers=bearer()) as answer:
            assert (answer.status, address.startswith(f"{PREFIX}/api/jobs/")) == (200, True)
        async with client.get(f"{PREFIX}/openapi.json") as answer:
            assert (await answer.json())["servers"] == [{"url": PREFIX}]
        async with client.get(f"{PREFIX}/docs/start.js") as answer:
            assert answer.status == 200
        async with client.delete(f"{PREFIX}{ROUTE}") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "OPTIONS, POST")


@pytest.mark.parametrize(
    ("trusted", "prefix"),
    [("10.0.0.0/8", PREFIX), ("127.0.0.1", "//evil.example"), ("127.0.0.1", "https://evil.example"), ("*", "/a b")],
)
async def test_a_prefix_from_anybody_else_or_that_is_none_is_ignored(
    database_url: str, database: Pool, redis_url: str, trusted: str, prefix: str
) -> None:
    """Else a caller could have the API send others to another host."""
    await add_organizations(database)
    base = api_settings(database_url=database_url, broker_url=redis_url)
    headers = {**bearer(), "X-Forwarded-Prefix": prefix}
    async with (
        serving(base.model_copy(update={"trusted_proxies": trusted})) as api,
        api.post(ROUTE, json=GOOD, headers=headers) as answer,
    ):
        assert answer.headers["Location"].startswith("/api/jobs/")


async def test_a_trailing_slash_is_not_redirected(api: aiohttp.ClientSession) -> None:
    """A redirect would name the host and the scheme that the proxy hides, and turn a POST into a GET."""
    for path in (f"{ROUTE}/", f"/api/jobs/{JOB}/", "/docs/", "/healthz/"):
        async with api.get(path, headers=bearer(), allow_redirects=False) as answer:
            assert (answer.status, (await answer.json(content_type=None))["code"]) == (404, "not_found")


async def test_events_pass_a_proxy_as_they_come(api: aiohttp.ClientSession, projection: Projection) -> None:
    """The headers ask proxies to gather and to keep nothing, and the first event is there while the job goes on."""
    await projection.project([requested()])
    async with proxied(api) as client, client.get(f"{PREFIX}/api/jobs/{JOB}/events", headers=bearer()) as answer:
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert answer.headers["Cache-Control"] == "no-store, no-transform"
        lines = b""
        while b"event: requested" not in lines:
            lines += await answer.content.readany()
        await projection.project([started(), completed()])
        assert b"event: completed" in await answer.content.read()


async def test_each_address_says_which_methods_it_takes(api: aiohttp.ClientSession, projection: Projection) -> None:
    """HEAD is answered as GET is, without the body and at once, a stream's too; OPTIONS and 405 name all methods."""
    await projection.project([requested()])
    for path in (
        f"/api/jobs/{JOB}",
        f"/api/jobs/{JOB}/events",
        "/healthz",
        "/readyz",
        "/docs",
        "/openapi.json",
        "/metrics",
    ):
        async with api.get(path, headers=bearer()) as got, api.head(path, headers=bearer()) as head:
            assert (head.status, await head.read()) == (got.status, b"")
            assert head.headers["Content-Type"] == got.headers["Content-Type"]
    for path, allowed in (
        (ROUTE, "OPTIONS, POST"),
        (f"/api/jobs/{JOB}", "GET, HEAD, OPTIONS"),
        (f"/api/jobs/{JOB}/cancel", "OPTIONS, POST"),
        ("/api/ops/failed", "GET, HEAD, OPTIONS"),
        ("/healthz", "GET, HEAD, OPTIONS"),
        ("/docs", "GET, HEAD, OPTIONS"),
    ):
        async with api.options(path) as answer:
            assert (answer.status, answer.headers["Allow"]) == (204, allowed)
        async with api.patch(path) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, allowed)


# They begin as a string, and what the key would be is anybody's guess.
NO_STRINGS = ('"a', '"a"b', '"a""b"', '"a", "b"', r'"a\"', r'"a\b"', '"a";', '"a";=1', '"a";p="b', '"a";p=1,2', '"')


async def test_a_key_is_given_once(api: aiohttp.ClientSession, database: Pool) -> None:
    """Of two keys one would be passed over; twice the same is one."""
    for keys, status in ((("a", "b"), 422), (("a", "a"), 202)):
        headers = [*bearer().items(), *(("Idempotency-Key", key) for key in keys)]
        async with api.post(ROUTE, json=GOOD, headers=headers) as answer:
            document = await answer.json(content_type=None)
        assert answer.status == status
        if status == 422:
            assert document["errors"][0]["field"] == "Idempotency-Key"
    assert await database.fetchval("SELECT count(*) FROM job_requests") == 1


async def test_one_key_however_it_is_written(api: aiohttp.ClientSession, database: Pool) -> None:
    """Bare or quoted, with escapes or in UTF-8, up to 255 characters: the same key is the same job."""
    long = "k" * 255
    for spellings in (
        (
            *(
                "offsite-7",
                '"offsite-7"',
                '  "offsite-7" ',
                '"offsite-7";p=1',
                '"offsite-7" ; p',
                '"offsite-7";a=?1;b="x;\\"y"',
            ),
            *('"offsite-7";q=:aGk=:', '"offsite-7";p=tok/en', '"offsite-7";*a.b-c=1.5'),
        ),
        ("k;p=1", '"k;p=1"', '"k;p=1";p=1'),
        (r"a\b", r'"a\\b"'),
        ('say "hi"', r'"say \"hi\""'),
        ("größe", '"größe"'),
        (long, f'"{long}"'),
    ):
        jobs = set()
        for spelling in spellings:
            headers = {**bearer(), "Idempotency-Key": spelling}
            async with api.post(ROUTE, json=GOOD, headers=headers) as answer:
                assert answer.status == 202
                jobs.add((await answer.json())["job_id"])
        assert len(jobs) == 1, spellings
    kept = {row["idempotency_key"] for row in await database.fetch("SELECT idempotency_key FROM job_requests")}
    assert kept == {"offsite-7", "k;p=1", r"a\b", 'say "hi"', "größe", long}
    for wrong in ("k" * 256, '""', '"' + "k" * 256 + '"', "", "a\tb", *NO_STRINGS):
        async with api.post(ROUTE, json=GOOD, headers={**bearer(), "Idempotency-Key": wrong}) as answer:
            document = await answer.json(content_type=None)
        assert (answer.status, document["errors"][0]["field"]) == (422, "Idempotency-Key")


async def test_the_docs_page_needs_no_internet(api: aiohttp.ClientSession) -> None:
    """All of its files are served here, and its policy lets the browser load no other."""
    async with api.get("/docs") as answer:
        page = await answer.text()
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "script-src 'self';" in answer.headers["Content-Security-Policy"]
    assert "//" not in page.replace("<!doctype html>", "")
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "start.js", "favicon.png"):
        assert f"docs/{name}" in page
        async with api.get(f"/docs/{name}") as answer:
            assert (answer.status, len(await answer.read()) > 50) == (200, True)
    async with api.get("/docs/unknown.js") as answer:
        assert answer.status == 404


def test_idle_connections_outlive_a_load_balancers() -> None:
    """A load balancer whose idle time is longer than ours sends requests into connections that are being closed."""
    settings = api_settings(database_url="unused")
    assert configuration(lambda *_: None, settings).timeout_keep_alive == 75  # type: ignore[arg-type]
    longer = settings.model_copy(update={"keep_alive_s": 620})
    assert configuration(lambda *_: None, longer).timeout_keep_alive == 620  # type: ignore[arg-type]
