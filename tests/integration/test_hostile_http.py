"""Every value that means harm, wherever HTTP takes one: the caller's fault is said to be so, and nothing breaks."""

import base64
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote, quote_from_bytes

import aiohttp
import pytest
import structlog
from yarl import URL

from tests.api_server import api_settings, bearer, serving
from tests.conftest import Pool
from tests.hostile import HOSTILE_BYTES, HOSTILE_NUMBERS, HOSTILE_TEXTS, HOSTILE_TIMES
from tests.organizations import add_organizations

GENERATE = "/api/activities/generate-custom"
GOOD = {"organization_id": "acme", "team_id": "acme-team", "requirements": "Two hours outdoors"}
UNKNOWN = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
BOTH = bearer("acme", "jobs", "operator")
VALUES = (*HOSTILE_TEXTS, *HOSTILE_NUMBERS, *HOSTILE_TIMES, {"a": {"b": []}}, [[[]]])
BODIES: dict[str, dict[str, Any]] = {
    GENERATE: {**GOOD, "run_at": None},
    f"/api/jobs/{UNKNOWN}/cancel": {"reason": None},
    f"/api/ops/failed/{UNKNOWN}/discard": {"because": None},
    f"/api/ops/replay/plans/{UNKNOWN}/apply": {"rate": None},
}
# One of each type: the others are read alike.
FILTER = ("stage", "job_id", "since")
QUERIES = {
    "/api/ops/failed": (*FILTER, "limit", "after"),
    f"/api/ops/replay/plans/{UNKNOWN}": ("after",),
}
PATHS = (
    "%00",
    "%ff%fe",
    "%2e%2e%2f",
    "%",
    "%zz",
    "%e2%80%ae",
    "a" * 5_000,
    "%F0%9F%98%80",
    "..;",
    "'--",
    "{x}",
    "*",
    "%0d%0aX:1",
)
# What a client sends as a header's value.
HEADER_VALUES = [
    text.encode("utf-8", "replace").decode("latin-1")[:8_000]
    for text in (*HOSTILE_TEXTS, *HOSTILE_TIMES, *map(str, HOSTILE_NUMBERS))
    if all(character >= " " for character in text)
]


@pytest.fixture
async def api(database_url: str, database: Pool, redis_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """An API with everything it needs."""
    await add_organizations(database)
    async with serving(api_settings(database_url=database_url, broker_url=redis_url)) as session:
        yield session


async def refused(answer: aiohttp.ClientResponse, what: object) -> None:
    """Check that an answer is good, or a problem document that is not our fault."""
    assert answer.status < 500, (what, await answer.text())
    if answer.status >= 400:
        assert answer.content_type == "application/problem+json", what
        assert (await answer.json(content_type=None))["status"] == answer.status


def bodies() -> Iterator[tuple[str, bytes]]:
    """Give each route with a body each hostile body, and each hostile value in each of its fields."""
    # The list of failed events reads the same filter.
    filters: dict[str, dict[str, Any]] = {"/api/ops/replay/plans": {"since": None}}
    for path, fields in (BODIES | filters).items():
        for raw in HOSTILE_BYTES:
            yield path, raw[:200_000]
        for name in fields:
            for value in VALUES:
                yield path, json.dumps({**{n: v for n, v in fields.items() if v is not None}, name: value}).encode()
        yield path, b'{"organization_id": "acme", "organization_id": 1, "a": ' + b"9" * 5_000 + b"}"


async def test_no_body_breaks_a_route(api: aiohttp.ClientSession, database: Pool) -> None:
    """Each is refused by field or taken; what is taken can be read again, and the next good request is served."""
    headers = {**BOTH, "Content-Type": "application/json"}
    for path, data in bodies():
        async with api.post(path, data=data, headers=headers) as answer:
            await refused(answer, (path, data[:200]))
            accepted = await answer.json(content_type=None) if answer.status == 202 else None
        if accepted is not None:
            async with api.get(accepted["status_url"], headers=BOTH) as answer:
                assert answer.status == 200, data[:200]
    async with api.post(GENERATE, json=GOOD, headers=BOTH) as answer:
        assert answer.status == 202
    for coding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"):
        async with api.post(GENERATE, data=json.dumps(GOOD).encode(coding), headers=headers) as answer:
            assert (answer.status, (await answer.json())["code"]) == (400, "bad_request"), coding
    # Tried a hundred times too often to be kept for ever: what was taken is within the quota.
    assert await database.fetchval("SELECT count(*) FROM job_requests") < 100


async def test_no_address_breaks_a_route(api: aiohttp.ClientSession) -> None:
    """Rubbish in paths, hostile values and bytes in queries."""
    base = str(api._base_url).rstrip("/")
    paths = [
        (method, f"{start}/{rubbish}{end}")
        for method, start, end in (
            ("GET", "/api/jobs", ""),
            ("GET", "/api/jobs", "/events"),
            ("POST", "/api/jobs", "/cancel"),
            ("GET", "/api/ops/failed", ""),
            ("GET", "/api/ops/replay/plans", ""),
            ("POST", "/api/ops/replay/plans", "/abort"),
            ("GET", "", ""),
            ("GET", "/docs", ""),
        )
        for rubbish in PATHS
    ]
    for path, names in QUERIES.items():
        for name in names:
            values = [quote(json.dumps(one) if not isinstance(one, str) else one, errors="replace") for one in VALUES]
            raws = [quote_from_bytes(one) for one in HOSTILE_BYTES]
            paths += [("GET", f"{path}?{name}={value[:6_000]}") for value in values + raws]
        paths += [
            ("GET", f"{path}?{raw}") for raw in ("%ff=%ff", "a&b=&=c&&", "limit=1&limit=2", "%00", "limit[]=1", "%")
        ]
    for method, path in paths:
        async with api.request(method, URL(f"{base}{path}", encoded=True), headers=BOTH) as answer:
            await refused(answer, path[:200])


async def test_no_header_breaks_a_route(api: aiohttp.ClientSession) -> None:
    """Hostile values in each header that a route reads."""
    for name in (
        "Idempotency-Key",
        "traceparent",
        "tracestate",
        "Content-Type",
        "X-Forwarded-Prefix",
        "X-Forwarded-For",
    ):
        for value in HEADER_VALUES if name == "Idempotency-Key" else HEADER_VALUES[::4]:
            async with api.post(GENERATE, json={**GOOD, "team_id": "none"}, headers={**BOTH, name: value}) as answer:
                await refused(answer, (name, value[:200]))
    for name in ("If-None-Match", "Prefer", "Last-Event-ID", "Accept", "X-Forwarded-Proto"):
        for value in HEADER_VALUES[::3]:
            for path in (f"/api/jobs/{UNKNOWN}", f"/api/jobs/{UNKNOWN}/events"):
                async with api.get(path, headers={**BOTH, name: value}) as answer:
                    await refused(answer, (name, value[:200]))


def tokens() -> Iterator[str]:
    """Give tokens that nobody signed, hostile before their signature is looked at; and values that are none."""
    for header in (
        b"[" * 15_000,
        b'{"alg": ' + b"9" * 5_000 + b"}",
        b'{"alg": "none"}',
        b'{"alg": null, "crit": [1]}',
        b"\xff",
    ):
        for payload in (b"{}", b"[" * 15_000, b'{"exp": 1e400, "org": "\\ud800"}'):
            parts = (header, payload, b"signature")
            yield "Bearer " + ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    for text in HEADER_VALUES:
        yield f"Bearer {text}"
        yield text


async def test_no_token_breaks_a_route(api: aiohttp.ClientSession) -> None:
    """Whatever is sent for a token is 401."""
    for token in tokens():
        for path in ("/api/jobs/" + UNKNOWN, "/api/ops/failed"):
            async with api.get(path, headers={"Authorization": token}) as answer:
                assert answer.status == 401, token[:200]


async def test_nothing_that_is_private_is_logged(api: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture) -> None:
    """Neither tokens nor keys nor wishes, whether they are right or wrong."""
    secrets = ("swordfish-wish", "swordfish-key", "swordfish-token", "swordfish-team", BOTH["Authorization"][7:])
    wish = {**GOOD, "requirements": secrets[0]}
    with caplog.at_level(logging.DEBUG), structlog.testing.capture_logs() as lines:
        for body in (wish, {**wish, "team_id": secrets[3]}, {**wish, "run_at": secrets[0]}, {secrets[0]: secrets[0]}):
            async with api.post(GENERATE, json=body, headers={**BOTH, "Idempotency-Key": secrets[1]}) as answer:
                assert answer.status in {202, 404, 422}
        async with api.post(GENERATE, json=wish, headers={"Authorization": f"Bearer {secrets[2]}"}) as answer:
            assert answer.status == 401
    logged = caplog.text + str(lines)
    assert "request.accepted" in logged
    assert [secret for secret in secrets if secret in logged] == []
