"""Every way to get HTTP wrong, and the problem document that answers it."""

import io
import json
import logging
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import orjson
import pytest
import structlog
from fastapi import FastAPI

from infra.api import create_api, failures
from infra.auth import NoSigningKey, issue_token
from infra.settings import Settings
from tests.api_server import SIGNING_KEY, api_settings, bearer, serving, serving_app
from tests.conftest import Pool
from tests.organizations import add_organizations
from tests.stream_entries import entries_of

ROUTE = "/api/activities/generate-custom"
UNKNOWN = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
GOOD = {"organization_id": "acme", "team_id": "acme-team", "requirements": "Two hours outdoors"}


@pytest.fixture
async def api(database_url: str, database: Pool, redis_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """An API with everything it needs."""
    await add_organizations(database)
    async with serving(api_settings(database_url=database_url, broker_url=redis_url)) as session:
        yield session


async def problem_of(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """Return the problem document, having checked that it is one."""
    assert answer.content_type == "application/problem+json"
    document: dict[str, Any] = await answer.json(content_type=None)
    assert document["status"] == answer.status
    assert {"type", "title", "status", "detail", "code"} <= document.keys()
    return document


@pytest.mark.parametrize(
    ("changes", "field", "advice"),
    [
        ({"requirements": None}, "requirements", "is missing; add it"),
        ({"requirements": 7}, "requirements", "must be a string"),
        ({"requirements": "   "}, "requirements", "at least 1 character"),
        ({"requirements": "secret" * 2_000}, "requirements", "more than 10000 characters; shorten it"),
        ({"requirements": "secret\0"}, "requirements", "NUL"),
        ({"team_id": ""}, "team_id", "at least 1 character"),
        ({"organization_id": "secret" * 20}, "organization_id", "more than 64 characters"),
        ({"run_at": "secretly"}, "run_at", "must be a time such as 2031-04-03T08:00:00Z"),
        ({"run_at": "2031-04-03T08:00:00"}, "run_at", "must say its time zone, as in 2031-04-03T08:00:00Z"),
        ({"run_at": ["secret"]}, "run_at", "must be a time such as"),
    ],
)
async def test_a_bad_field_is_named_with_the_fix(
    api: aiohttp.ClientSession, changes: dict[str, Any], field: str, advice: str
) -> None:
    """The document says which field and what to do, and never repeats the input."""
    async with api.post(ROUTE, json={**GOOD, **changes}, headers=bearer()) as answer:
        document = await problem_of(answer)
    assert (answer.status, document["code"]) == (422, "invalid_request")
    assert [one["field"] for one in document["errors"]] == [field]
    assert advice in document["errors"][0]["message"]
    assert "secret" not in str(document)


UNKNOWN_FIELDS: list[tuple[str, dict[str, object], str, str]] = [
    (ROUTE, {"runAt": "2031-04-03T08:00:00Z"}, "runAt", "did you mean `run_at`?"),
    (ROUTE, {"organisation-id": "acme"}, "organisation-id", "did you mean `organization_id`?"),
    (ROUTE, {"TEAMID": "acme"}, "TEAMID", "did you mean `team_id`?"),
    (ROUTE, {"prompt": "x"}, "prompt", "use one of: organization_id, team_id, requirements, run_at"),
    (ROUTE, {"n" * 1_000: 1}, "n" * 100 + "…", "remove it"),
    (ROUTE, {"\ud800": 1}, "body", "not valid Unicode"),
    (f"/api/jobs/{UNKNOWN}/cancel", {"reasons": "x"}, "reasons", "did you mean `reason`?"),
    ("/api/ops/replay/plans", {"organization": "x"}, "organization", "did you mean `organization_id`?"),
    (f"/api/ops/replay/plans/{UNKNOWN}/apply", {"Rate": 1, "rate": 1}, "Rate", "did you mean `rate`?"),
    (f"/api/ops/failed/{UNKNOWN}/discard", {"because": "x", "why": "y"}, "why", "use one of: because"),
]


async def test_an_unknown_field_is_refused_with_the_name_that_was_meant(api: aiohttp.ClientSession) -> None:
    """No route with a body passes over a field that it does not know, as `runAt` would run at once."""
    headers = {**bearer("acme", "jobs", "operator"), "Content-Type": "application/json"}
    for path, body, field, advice in UNKNOWN_FIELDS:
        data = json.dumps({**(GOOD if path == ROUTE else {}), **body})
        async with api.post(path, data=data, headers=headers) as answer:
            document = await problem_of(answer)
        assert (answer.status, [one["field"] for one in document["errors"]]) == (422, [field])
        assert advice in document["errors"][0]["message"]


async def test_a_query_is_refused_that_is_not_understood(api: aiohttp.ClientSession) -> None:
    """Where a route reads its query, a misspelt parameter would widen what is meant."""
    for path in ("/api/ops/failed", f"/api/ops/replay/plans/{UNKNOWN}"):
        async with api.get(path, params={"limits": "1"}, headers=bearer("teamfit", "operator")) as answer:
            document = await problem_of(answer)
        assert answer.status == 422
        assert document["errors"] == [{"field": "limits", "message": "is not known; did you mean `limit`?"}]


async def test_no_query_parameter_is_given_twice(api: aiohttp.ClientSession) -> None:
    """One of the two would be passed over; whatever the route, the parameter is named."""
    async with api.get("/openapi.json") as answer:
        paths = (await answer.json())["paths"]
    tried = 0
    for path, methods in paths.items():
        queries = [one["name"] for one in methods.get("get", {}).get("parameters", ()) if one["in"] == "query"]
        queries = [name for name in queries if name != "ticket"]  # it is taken out of the address before all else
        for name in queries:
            address = re.sub(r"\{\w+\}", UNKNOWN, path)
            async with api.get(f"{address}?{name}=1&{name}=2", headers=bearer("acme", "jobs", "operator")) as answer:
                document = await problem_of(answer)
            assert answer.status == 422, path
            assert document["errors"] == [{"field": name, "message": "is given more than once; give it once"}]
            tried += 1
    assert tried > 20


async def test_a_body_with_thousands_of_mistakes_gets_a_short_answer(api: aiohttp.ClientSession) -> None:
    """Twenty mistakes are named, the others counted."""
    async with api.post(ROUTE, json={**GOOD, **{f"x{i}": 1 for i in range(1_000)}}, headers=bearer()) as answer:
        document = await problem_of(answer)
    assert (len(document["errors"]), document["detail"].endswith("; and 980 more")) == (20, True)


async def test_every_missing_field_is_named(api: aiohttp.ClientSession) -> None:
    """One round trip is enough to learn of all of them."""
    async with api.post(ROUTE, json={}, headers=bearer()) as answer:
        document = await problem_of(answer)
    assert {one["field"] for one in document["errors"]} == {"organization_id", "team_id", "requirements"}
    assert {one["message"] for one in document["errors"]} == {"is missing; add it"}


@pytest.mark.parametrize(
    ("data", "content_type", "status", "code"),
    [
        (b"requirements=walk", "application/json", 400, "invalid_json"),
        (b'{"requirements": ', "application/json", 400, "invalid_json"),
        (b"\xff\xfe\x00", "application/json", 400, "bad_request"),
        (b"[" * 60_000, "application/json", 400, "bad_request"),
        (b"[1]", "application/json", 422, "invalid_request"),
        (b'"text"', "application/json", 422, "invalid_request"),
        (orjson.dumps(GOOD), "text/plain", 422, "invalid_request"),
        (b"", "application/json", 422, "invalid_request"),
    ],
)
async def test_a_body_that_is_no_json_object(
    api: aiohttp.ClientSession, data: bytes, content_type: str, status: int, code: str
) -> None:
    """Whatever else comes as a body, the answer says what to send."""
    async with api.post(ROUTE, data=data, headers={**bearer(), "Content-Type": content_type}) as answer:
        document = await problem_of(answer)
    assert (answer.status, document["code"]) == (status, code)
    assert "body" in document["detail"]


async def test_a_lone_surrogate_is_no_text(api: aiohttp.ClientSession) -> None:
    """JSON can write half a character; it is refused by field instead of breaking further on."""
    data = orjson.dumps(GOOD).replace(b"Two", b"\\ud800")
    async with api.post(ROUTE, data=data, headers={**bearer(), "Content-Type": "application/json"}) as answer:
        document = await problem_of(answer)
    assert (answer.status, document["errors"][0]["field"]) == (422, "requirements")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_long_is_refused(api: aiohttp.ClientSession, *, chunked: bool) -> None:
    """A mebibyte of requirements is refused, whether or not it is announced, and the next request is served."""
    data = orjson.dumps({**GOOD, "requirements": "x" * 1024 * 1024})

    async def trickle() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 16_384):
            yield data[start : start + 16_384]

    headers = {**bearer(), "Content-Type": "application/json"}
    async with api.post(ROUTE, data=trickle() if chunked else io.BytesIO(data), headers=headers) as answer:
        document = await problem_of(answer)
    assert (answer.status, document["code"]) == (413, "body_too_large")
    async with api.post(ROUTE, json=GOOD, headers=bearer()) as answer:
        assert answer.status == 202


@pytest.mark.parametrize("escaped", [False, True])
async def test_the_longest_requirements_fit(api: aiohttp.ClientSession, *, escaped: bool) -> None:
    """Ten thousand characters are within the limit, of four bytes each or as two escapes of six."""
    longest = json.dumps({**GOOD, "requirements": "🧩" * 10_000}, ensure_ascii=escaped)
    headers = {**bearer(), "Content-Type": "application/json"}
    async with api.post(ROUTE, data=longest.encode(), headers=headers) as answer:
        assert answer.status == 202


async def test_bad_requests_do_not_stop_the_next_one(api: aiohttp.ClientSession, redis_url: str) -> None:
    """After each kind of bad body the API takes a good one, and only that is published."""
    for data in (b"{", b"\xff", b"[]", b"{}", orjson.dumps({**GOOD, "team_id": "unknown"})):
        async with api.post(ROUTE, data=data, headers={**bearer(), "Content-Type": "application/json"}) as answer:
            assert 400 <= answer.status < 500
    async with api.post(ROUTE, json=GOOD, headers=bearer()) as answer:
        assert answer.status == 202
    assert len(await entries_of(redis_url, "job-requests")) == 1


@pytest.mark.parametrize(
    ("header", "code", "challenge"),
    [
        (None, "unauthenticated", 'Bearer realm="teamfit"'),
        ("Basic YTpi", "unauthenticated", 'Bearer realm="teamfit"'),
        ("Bearer nonsense", "token_invalid", 'Bearer realm="teamfit", error="invalid_token"'),
        (
            "Bearer " + issue_token(SIGNING_KEY, organization_id="acme", lifetime=timedelta(hours=-1)),
            "token_expired",
            'Bearer realm="teamfit", error="invalid_token"',
        ),
    ],
)
async def test_without_a_valid_token_nobody_gets_in(
    api: aiohttp.ClientSession, header: str | None, code: str, challenge: str
) -> None:
    """401 with a challenge, on both routes, and a code that says what is wrong with the token."""
    headers = {"Authorization": header} if header else {}
    for method, path in (("POST", ROUTE), ("GET", "/api/jobs/0f9b9ad4-6f2c-4b0e-9a51-0d2d8e1c7a10")):
        async with api.request(method, path, json=GOOD, headers=headers) as answer:
            document = await problem_of(answer)
        assert (answer.status, document["code"]) == (401, code)
        assert answer.headers["WWW-Authenticate"] == challenge


async def test_a_token_without_the_scope_is_not_enough(api: aiohttp.ClientSession) -> None:
    """403 names the scope that is missing."""
    async with api.post(ROUTE, json=GOOD, headers=bearer("acme", "reports")) as answer:
        document = await problem_of(answer)
    assert (answer.status, document["code"]) == (403, "insufficient_scope")
    assert 'scope="jobs"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nowhere", 404, "not_found"), ("DELETE", ROUTE, 405, "method_not_allowed")],
)
async def test_wrong_addresses_get_problem_documents_too(
    api: aiohttp.ClientSession, method: str, path: str, status: int, code: str
) -> None:
    """What no route answers is answered in the same form, with what to do about it."""
    async with api.request(method, path) as answer:
        document = await problem_of(answer)
    assert (answer.status, document["code"]) == (status, code)
    assert ("Allow" if status == 405 else "/openapi.json") in document["detail"]
    if status == 405:
        assert answer.headers["Allow"] == "OPTIONS, POST"


async def test_a_long_idempotency_key_is_named(api: aiohttp.ClientSession) -> None:
    """Headers are checked like fields."""
    async with api.post(ROUTE, json=GOOD, headers={**bearer(), "Idempotency-Key": "k" * 256}) as answer:
        document = await problem_of(answer)
    assert (answer.status, document["errors"][0]["field"]) == (422, "Idempotency-Key")


async def test_a_bug_tells_nothing_about_itself(caplog: pytest.LogCaptureFixture) -> None:
    """500, the same form, and an ID by which the log has the bug; neither has a word of the error's text."""
    app = FastAPI()
    failures.install(app)

    @app.get("/bug")
    async def bug() -> None:
        raise RuntimeError("the password is swordfish")

    with caplog.at_level(logging.INFO), structlog.testing.capture_logs() as lines:
        async with serving_app(app) as api, api.get("/bug") as answer:
            document = await problem_of(answer)
    logged = caplog.text + str(lines)
    assert (answer.status, document["code"]) == (500, "internal_error")
    assert "swordfish" not in str(document)
    assert document["error_id"] in logged
    assert "RuntimeError" in logged
    assert "swordfish" not in logged


async def test_the_routes_are_described(api: aiohttp.ClientSession) -> None:
    """The OpenAPI document lists the routes, their problem documents by media type, and the bearer scheme."""
    async with api.get("/openapi.json") as answer:
        document = await answer.json()
    post = document["paths"][ROUTE]["post"]
    assert {"202", "400", "401", "402", "403", "404", "413", "422", "429", "503", "default"} <= post["responses"].keys()
    for status in ("402", "422"):
        assert list(post["responses"][status]["content"]) == ["application/problem+json"]
    assert [list(one.values()) for one in post["security"]] == [[[]]]
    assert "ProblemDocument" in document["components"]["schemas"]


@pytest.mark.parametrize("key", [None, "too short"])
def test_without_a_signing_key_the_api_does_not_start(key: str | None) -> None:
    """The message names the variable and the command that makes a key."""
    with pytest.raises(NoSigningKey, match=r"TEAMFIT_SIGNING_KEY.*openssl rand"):
        create_api(Settings(signing_key=key, _env_file=None))  # type: ignore[arg-type]
