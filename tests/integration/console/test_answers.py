"""Whatever the console answers: the headers, the cookies, and what an odd address or a bug of ours leads to."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import pytest

from infra.api import create_api
from infra.api.console import create_app
from infra.auth import issue_token
from infra.console.pages import jobs
from infra.console.sessions import Role, Session, Sessions
from infra.postgres import Database
from infra.settings import Settings
from tests.api_server import SIGNING_KEY, api_settings, serving_app
from tests.conftest import Pool

_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
# Method, address below the console's, headers, body, and the status.
ANSWERS: Final[tuple[tuple[str, str, Mapping[str, str], bytes, int], ...]] = (
    ("GET", "/sign-in", {}, b"", 200),
    ("GET", "/sign-in/a-link", {}, b"", 200),
    ("GET", "/jobs", {}, b"", 303),
    ("HEAD", "/jobs", {}, b"", 303),
    ("GET", "/jobs", {"Sec-Fetch-Site": "cross-site"}, b"", 200),
    ("GET", "/nowhere", {}, b"", 404),
    ("GET", "/jobs/", {}, b"", 404),
    ("GET", "/static/console.css", {}, b"", 200),
    ("GET", "/static/nothing.css", {}, b"", 404),
    ("GET", "/static/..%2fapp.py", {}, b"", 404),
    ("DELETE", "/jobs", {}, b"", 405),
    ("OPTIONS", "/jobs", {"Origin": "https://evil.example"}, b"", 405),
    ("POST", "/static/console.css", {}, b"", 405),
    ("GET", "/live/jobs", {}, b"", 401),
    ("POST", "/jobs/cancel", _FORM, b"chosen=1", 401),
    ("POST", "/sign-in", _FORM, b"token=x", 403),
    ("POST", "/sign-in", {"Content-Type": "text/plain"}, b"token=x", 415),
    ("POST", "/sign-in", _FORM, b"token=" + b"x" * 300_000, 413),
    ("POST", "/sign-in", {**_FORM, "Content-Encoding": "gzip"}, b"token=x", 415),
    ("POST", "/sign-in", _FORM, "token=x".encode("utf-16"), 400),
)


@asynccontextmanager
async def alone(settings: Settings) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """Serve the console by itself."""
    async with serving_app(create_app(settings), settings) as http:
        yield http, settings.root_path


@asynccontextmanager
async def mounted(settings: Settings) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """Serve the console below the API."""
    with_console = settings.model_copy(update={"console": True})
    async with serving_app(create_api(with_console), with_console) as http:
        yield http, f"{settings.root_path}/console"


@pytest.fixture
async def sessions(database: Pool, database_url: str) -> AsyncIterator[Sessions]:
    """Sessions of a migrated database."""
    books = Database(database_url, size=1)
    yield Sessions(books)
    await books.close()


async def signed_in(sessions: Sessions, role: Role = "operator") -> dict[str, str]:
    """Return the header of somebody who has signed in."""
    session: Session = await sessions.begin("ann", role)
    return {"Cookie": f"teamfit_console={session.secret}"}


@pytest.mark.parametrize("prefix", ["", "/teamfit"])
@pytest.mark.parametrize("serve", [alone, mounted])
async def test_every_answer_has_the_policy(
    sessions: Sessions, database_url: str, redis_url: str, serve: Any, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages, redirects, refusals, files, other methods, bodies that nobody reads, and bugs: below a prefix too."""
    settings = api_settings(database_url=database_url, broker_url=redis_url).model_copy(update={"root_path": prefix})

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a wish for kayaks")

    monkeypatch.setattr(jobs, "list_jobs", fail)
    operator = await signed_in(sessions)
    asked = (*ANSWERS, ("GET", "/jobs", operator, b"", 500), ("GET", "/live/jobs", operator, b"", 500))
    async with serve(settings) as (http, root):
        for method, path, headers, body, status in asked:
            where = f"{method} {root}{path} {dict(headers)}"
            async with http.request(
                method, root + path, data=body or None, headers=headers, allow_redirects=False
            ) as answer:
                text = (await answer.read()).decode(errors="replace")
                assert answer.status == status, (where, text)
                policy = answer.headers["Content-Security-Policy"]
                assert policy.startswith("default-src 'none'"), where
                assert policy.endswith("frame-ancestors 'none'"), where
                assert "unsafe" not in policy, where
                assert answer.headers["X-Content-Type-Options"] == "nosniff", where
                assert answer.headers["X-Frame-Options"] == "DENY", where
                assert answer.headers["Referrer-Policy"] == "same-origin", where
                assert answer.headers["Cache-Control"].startswith("no-"), where
                assert "Access-Control-Allow-Origin" not in answer.headers, where
                assert "kayaks" not in text, where


async def test_a_bug_is_a_page_with_the_id_by_which_the_log_has_it(
    sessions: Sessions,
    database_url: str,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It was a line of plain text without any of the headers, and the log had the text of the error."""
    settings = api_settings(database_url=database_url, broker_url=redis_url)

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a wish for kayaks")

    monkeypatch.setattr(jobs, "list_jobs", fail)
    operator = await signed_in(sessions)
    async with alone(settings) as (http, root), http.get(f"{root}/jobs", headers=operator) as answer:
        page = await answer.text()
    assert 'role="alert"' in page
    assert "the console&#39;s log has the error under error_id " in page
    error_id = page.partition("under error_id ")[2][:32]
    said = "".join(capfd.readouterr())
    assert "kayaks" not in said
    assert error_id in said


async def test_cookies_are_kept_from_scripts_other_sites_and_plain_http(
    database: Pool, database_url: str, redis_url: str
) -> None:
    """Behind a proxy that speaks https each cookie is Secure, and it goes to the console's own addresses alone."""
    settings = api_settings(database_url=database_url, broker_url=redis_url).model_copy(
        update={"root_path": "/teamfit"}
    )
    token = issue_token(SIGNING_KEY, organization_id="ops", subject="ann", scopes=("viewer",))
    https = {"X-Forwarded-Proto": "https", "Host": "console.example"}
    async with alone(settings) as (http, root):
        async with http.get(f"{root}/sign-in", headers=https) as shown:
            visitor, page = shown.headers["Set-Cookie"], await shown.text()
        form_token = page.partition('name="form_token" value="')[2].partition('"')[0]
        headers = {**https, "Cookie": visitor.partition(";")[0]}
        data = {"form_token": form_token, "token": token}
        async with http.post(f"{root}/sign-in", data=data, headers=headers, allow_redirects=False) as answer:
            assert answer.status == 303, await answer.text()
            session = answer.headers["Set-Cookie"]
        plain = {"Host": "console.example", "Cookie": headers["Cookie"]}
        async with http.post(f"{root}/sign-in", data=data, headers=plain) as answer:
            assert answer.status == 403
            assert "over https" in await answer.text()
    assert session.startswith("teamfit_console=")
    for cookie in (visitor, session):
        parts = {part.strip().partition("=")[0].lower(): part.strip().partition("=")[2] for part in cookie.split(";")}
        assert {"httponly", "secure"} <= parts.keys()
        assert (parts["samesite"], parts["path"]) == ("strict", "/teamfit")
        assert 0 < int(parts["max-age"]) <= 8 * 3600
        assert "domain" not in parts


ODD: Final = (
    *("status=failed&status=pending", "organization_id=acme&organization_id=birch"),
    *("status=FAILED", "status=%20lost%20", "run=-1", "run=1.5", "run=99999999999999999999", "run=%D9%A3x"),
    *("since=yesterday", "since=2031-13-01T00:00:00Z", "since=0000-01-01T00:00:00Z", "until=1e9999"),
    *("limit=0", "limit=501", "limit=-5", "order=random", "cursor=AAAA", "cursor=%00", "cursor=%F0%9F%92%A3"),
    *("trace_id=xyz", "trace_id=" + "A" * 32, "words=%00", "organization_id=%00", "team_id=%00", "form_token=x"),
)


async def test_an_odd_filter_names_the_field_and_is_no_error_of_ours(
    sessions: Sessions, database_url: str, redis_url: str
) -> None:
    """An address is what somebody has typed: each wrong value is refused with its field, on the live part too."""
    settings = api_settings(database_url=database_url, broker_url=redis_url)
    operator = await signed_in(sessions)
    async with alone(settings) as (http, _):
        for query in ODD:
            for path in ("/jobs", "/live/jobs"):
                async with http.get(f"{path}?{query}", headers=operator) as answer:
                    page = await answer.text()
                    assert answer.status == 422, (path, query, page)
                    assert query.partition("=")[0] in page.partition('role="alert"')[2], (path, query)
        for words in ("%27%22%3C%26", "%3A*%20%26%20%21", "or", "-", "%22", "", "%E2%80%AE"):
            async with http.get(f"/jobs?words={words}", headers=operator) as answer:
                assert answer.status == 200, words
        for path in ("/failed?stage=quota&stage=quota", "/actions?actor=a&actor=b", "/webhooks?cursor=a&cursor=b"):
            async with http.get(path, headers=operator) as answer:
                assert answer.status == 422, path
                assert "is given twice" in await answer.text()
