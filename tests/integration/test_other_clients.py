"""Requests as other clients and proxies write them, byte by byte, are served or refused in a sentence."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import aiohttp
import pytest

from consumers.projection.handlers import Projection
from infra.postgres import Database
from tests.api_server import api_settings, bearer, serving
from tests.conftest import Pool
from tests.facts import JOB, requested
from tests.organizations import add_organizations

ROUTE: Final = "/api/activities/generate-custom"
STATUS: Final = f"/api/jobs/{JOB}"
TOKEN: Final = bearer()["Authorization"].removeprefix("Bearer ")
GOOD: Final = json.dumps(
    {"organization_id": "acme", "team_id": "acme-team", "requirements": "Two hours outdoors"}
).encode()
HOST: Final = b"Host: api\r\n"
LOGIN: Final = f"Authorization: Bearer {TOKEN}\r\n".encode()
JSON: Final = b"Content-Type: application/json\r\n"
CHUNKS: Final = b"%x;name=value\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(GOOD), GOOD)


def get(
    more: bytes = b"",
    *,
    path: str = STATUS,
    method: bytes = b"GET",
    version: bytes = b"1.1",
    host: bytes = HOST,
    login: bytes = LOGIN,
) -> bytes:
    """Return a request without a body."""
    first = method + f" {path} HTTP/".encode() + version
    return first + b"\r\n" + host + login + more + b"Connection: close\r\n\r\n"


def post(
    body: bytes = GOOD, more: bytes = b"", *, media: bytes = JSON, length: bytes | None = None, path: str = ROUTE
) -> bytes:
    """Return a request for activities."""
    length = f"Content-Length: {len(body)}\r\n".encode() if length is None else length
    return (
        f"POST {path} HTTP/1.1\r\n".encode()
        + HOST
        + LOGIN
        + media
        + length
        + more
        + b"Connection: close\r\n\r\n"
        + body
    )


def logged_in(value: str) -> bytes:
    """Return a login as somebody writes it."""
    return f"Authorization: {value}\r\n".encode()


SERVED: Final[dict[str, bytes]] = {
    "HTTP/1.0": get(version=b"1.0"),
    "HTTP/1.0 without a host": get(version=b"1.0", host=b""),
    "an empty host": get(host=b"Host:\r\n"),
    "a whole address": get(path=f"http://api.example.com{STATUS}"),
    "a whole address with a port, in capitals": get(path=f"HTTPS://API:8443{STATUS}?_=1"),
    "HEAD": get(method=b"HEAD"),
    "letters that need no encoding": get(path=STATUS.replace("jobs", "%6Aobs")),
    "a UUID in capitals": get(path=f"/api/jobs/{str(JOB).upper()}"),
    "a UUID without dashes": get(path=f"/api/jobs/{JOB.hex}"),
    "a UUID in braces": get(path=f"/api/jobs/%7B{JOB}%7D"),
    "a UUID with a space": get(path=f"{STATUS}%20"),
    "a query of somebody's": get(path=f"{STATUS}?utm_source=x&_=123"),
    "nothing behind a question mark": get(path=f"{STATUS}?"),
    **{
        f"Accept: {value.decode()}": get(b"Accept: " + value + b"\r\n")
        for value in (b"text/html", b"application/json;version=1", b"*/*;q=0", b"", b"text/event-stream")
    },
    "a range": get(b'Range: bytes=0-5\r\nIf-Range: "x"\r\n'),
    "conditions of others": get(b'If-Match: "x"\r\nIf-Modified-Since: Wed, 21 Oct 2099 07:28:00 GMT\r\n'),
    "codings that we lack": get(b"Accept-Encoding: br, zstd, identity;q=0\r\nTE: trailers\r\n"),
    "a scheme in small letters": get(login=logged_in(f"bearer {TOKEN}")),
    "two spaces before the token": get(login=logged_in(f"Bearer  {TOKEN}")),
    "a space behind the token": get(login=logged_in(f"Bearer {TOKEN} ")),
    "the same login twice": get(login=2 * LOGIN),
    "a folded header": get(b"X-Note: one\r\n two\r\n"),
    "a folded login": get(login=f"Authorization: Bearer\r\n {TOKEN}\r\n".encode()),
    "line feeds alone": get().replace(b"\r\n", b"\n"),
    "a blank line before": b"\r\n" + get(),
    "200 headers": get(b"".join(b"X-%d: y\r\n" % number for number in range(200))),
    "a cookie of 8 kB": get(b"Cookie: a=" + b"b" * 8_000 + b"\r\n"),
    "an upgrade to WebSocket": get(b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
    "an upgrade to HTTP/2": get(b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
    "forwarded, in each way": get(
        b"Forwarded: for=192.0.2.60;proto=https;host=x, for=unknown\r\nX-Forwarded-Proto: https,http\r\n"
        b"X-Forwarded-For: unknown, [::1]:4, _hidden\r\nX-Forwarded-Host: x\r\nVia: 1.1 x\r\n"
    ),
    "forwarded, in no way": get(b"Forwarded: ;;==\r\nX-Forwarded-Proto: javascript\r\nX-Forwarded-Prefix: //x\r\n"),
    "another method, meant for others": get(b"X-HTTP-Method-Override: DELETE\r\nX-Original-URL: /api/ops/failed\r\n"),
    **{
        f"Prefer: {value}": get(f"Prefer: {value}\r\n".encode())
        for value in ("wait=-1", "wait=1.5", "wait", "wait=", "return=minimal, respond-async")
    },
    "lists in several lines": get(3 * b"Accept: text/html\r\nAccept-Encoding: br\r\nVia: 1.1 x\r\nbaggage: a=b\r\n"),
    "a body that GET has not": get(b"Content-Length: 3\r\n") + b"abc",
    "a keep-alive of HTTP/1.0": get(version=b"1.0", more=b"Proxy-Connection: keep-alive\r\n"),
}

ACCEPTED: Final[dict[str, bytes]] = {
    "chunks, with an extension and a trailer": post(CHUNKS, b"Transfer-Encoding: chunked\r\n", length=b""),
    "chunks, in capitals": post(CHUNKS, b"Transfer-Encoding: Chunked\r\n", length=b""),
    "the same length twice": post(more=f"Content-Length: {len(GOOD)}\r\n".encode()),
    "an expectation": post(more=b"Expect: 100-continue\r\n"),
    "an expectation that nobody knows": post(more=b"Expect: 200-ok\r\n"),
    "a whole address": post(path=f"http://api{ROUTE}"),
    "HTTP/1.0": post().replace(b"HTTP/1.1", b"HTTP/1.0"),
    **{
        media: post(media=f"Content-Type: {media}\r\n".encode())
        for media in (
            *("APPLICATION/JSON", "application/json;", "application/json; charset=utf-8"),
            *("application/vnd.api+json", "application/cloudevents+json"),
        )
    },
    "a byte order mark": post(b"\xef\xbb\xbf" + GOOD),
    "line breaks behind": post(GOOD + b"\r\n\r\n"),
    "no coding": post(more=b"Content-Encoding: identity\r\n"),
    "a blank coding": post(more=b"Content-Encoding: \r\n"),
    "no coding, in two lines": post(more=2 * b"Content-Encoding: identity\r\n"),
    "the same media type twice": post(media=2 * JSON),
    "the same key twice": post(more=b"Idempotency-Key: same\r\nIdempotency-Key: same\r\n"),
    "a key in quotation marks, with a parameter": post(more=b'Idempotency-Key: "key";p=1\r\n'),
}

REFUSED: Final[dict[str, tuple[bytes, int, str]]] = {
    "no host": (get(host=b""), 400, "Send HTTP/1.1"),
    "two hosts": (get(host=2 * HOST), 400, "Send HTTP/1.1"),
    "HTTP/0.9": (b"GET /healthz\r\n\r\n", 400, "Send HTTP/1.1"),
    "HTTP/2 at once": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "Send HTTP/1.1"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 300, 400, "Send HTTP/1.1"),
    "a proxy's line of its own": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + get(), 400, "Send HTTP/1.1"),
    "zeros": (b"\0" * 100, 400, "Send HTTP/1.1"),
    "a tunnel": (b"CONNECT api:443 HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", 404, "nothing at this address"),
    **{
        f"method {method.decode()}": (get(method=method), 405, "does not take that method")
        for method in (b"PUT", b"PATCH", b"DELETE", b"TRACE", b"PROPFIND", b"get", b"POST")
    },
    "a slash more": (get(path=f"{STATUS}/"), 404, "nothing at this address"),
    "two slashes": (get(path=f"/{STATUS}"), 404, "nothing at this address"),
    "dots": (get(path=f"/api/jobs/../jobs/{JOB}"), 404, "nothing at this address"),
    "another case": (get(path=STATUS.replace("api", "API")), 404, "nothing at this address"),
    "Java's session": (get(path=f"{STATUS};jsessionid=1"), 422, "job_id: must be a UUID"),
    "a fragment": (get(path=f"{STATUS}#part"), 422, "job_id: must be a UUID"),
    "a line break in a path": (get(path=f"{STATUS}%0d%0aX: 1".replace(" ", "%20")), 422, "job_id: must be a UUID"),
    "a space in a path": (get(path=f"{STATUS} x"), 400, "Send HTTP/1.1"),
    "a space before a colon": (get(b"X-Note : x\r\n"), 400, "Send HTTP/1.1"),
    "a NUL in a header": (get(b"X-Note: a\0b\r\n"), 400, "Send HTTP/1.1"),
    "a carriage return in a header": (get(b"X-Note: a\rb\r\n"), 400, "Send HTTP/1.1"),
    "a header of 200 kB": (get(b"X-Note: " + b"y" * 200_000 + b"\r\n"), 400, "Send HTTP/1.1"),
    "two logins": (get(login=LOGIN + logged_in("Basic eDp5")), 401, "is given more than once; send one"),
    "a token in quotation marks": (get(login=logged_in(f'Bearer "{TOKEN}"')), 401, "bearer token"),
    "another scheme": (get(login=logged_in(f"Token {TOKEN}")), 401, "is not a bearer token"),
    "a token in the query": (get(path=f"{STATUS}?access_token={TOKEN}", login=b""), 401, "is missing"),
    "a token in a cookie": (get(login=f"Cookie: token={TOKEN}\r\n".encode()), 401, "is missing"),
    "a length and chunks": (
        post(CHUNKS, b"Transfer-Encoding: chunked\r\n", length=b"Content-Length: 5\r\n"),
        400,
        "Content-Length and Transfer-Encoding: are both given; send one of them",
    ),
    "two lengths": (post(more=b"Content-Length: 5\r\n"), 400, "Send HTTP/1.1"),
    "a length below zero": (post(b"", length=b"Content-Length: -1\r\n"), 400, "Send HTTP/1.1"),
    "a chunk's length that is none": (
        post(b"zz\r\nabc\r\n", b"Transfer-Encoding: chunked\r\n", length=b""),
        400,
        "Send HTTP/1.1",
    ),
    "chunks that are compressed": (
        post(CHUNKS, b"Transfer-Encoding: gzip, chunked\r\n", length=b""),
        400,
        "Send HTTP/1.1",
    ),
    "a coding in another line": (
        post(gzip.compress(GOOD), b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n"),
        415,
        "Content-Encoding: compressed bodies",
    ),
    "Amazon's chunks": (post(more=b"Content-Encoding: aws-chunked\r\n"), 415, "Content-Encoding: compressed bodies"),
    "compressed in secret": (post(gzip.compress(GOOD)), 400, "send a JSON object in UTF-8"),
    "Latin-1": (post(GOOD.replace(b"hours", "Stünden".encode("latin1"))), 400, "send a JSON object in UTF-8"),
    "two objects": (post(GOOD + GOOD), 400, "send a JSON object"),
    "a NUL behind": (post(GOOD + b"\0"), 400, "send a JSON object"),
    "a guard against XSSI": (post(b")]}'\n" + GOOD), 400, "send a JSON object"),
    "a list": (post(b"[" + GOOD + b"]"), 422, "body: must be a JSON object"),
    "nothing": (post(b""), 422, "body: is missing"),
    **{
        f"media type {media}": (
            post(media=f"Content-Type: {media}\r\n".encode()),
            422,
            "with Content-Type: application/json",
        )
        for media in ("text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x")
    },
    "no media type": (post(media=b""), 422, "with Content-Type: application/json"),
    "two keys": (
        post(more=b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n"),
        422,
        "Idempotency-Key: is given more than once",
    ),
    "two media types": (
        post(media=JSON + b"Content-Type: text/plain\r\n"),
        422,
        "Content-Type: is given more than once",
    ),
    "two numbers of events": (
        get(b"Last-Event-ID: 1\r\nLast-Event-ID: 2\r\n", path=f"{STATUS}/events"),
        422,
        "Last-Event-ID: is given more than once",
    ),
    "a blank key": (post(more=b"Idempotency-Key: \r\n"), 422, "Idempotency-Key: is empty"),
    "a key that is not closed": (
        post(more=b'Idempotency-Key: "key\r\n'),
        422,
        "Idempotency-Key: begins with a quotation",
    ),
    "an event's number that is none": (
        get(b"Last-Event-ID: abc\r\n", path=f"{STATUS}/events"),
        422,
        "Last-Event-ID: must be a whole number",
    ),
}


@pytest.fixture
async def api(database_url: str, database: Pool, redis_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """An API that knows a job."""
    await add_organizations(database)
    opened = Database(database_url, size=1)
    await Projection(opened).project([requested()])
    await opened.close()
    async with serving(api_settings(database_url=database_url, broker_url=redis_url)) as session:
        yield session


async def answer_to(api: aiohttp.ClientSession, request: bytes, *, until: bytes = b"") -> tuple[int, bytes]:
    """Return the last answer's status and what the connection brought, up to its end or these bytes."""
    base = api._base_url
    assert base is not None
    reader, writer = await asyncio.open_connection(base.host, base.port)
    brought = b""
    try:
        writer.write(request)
        async with asyncio.timeout(60):
            with suppress(ConnectionError):
                while not (until and until in brought) and (chunk := await reader.read(65_536)):
                    brought += chunk
    finally:
        writer.close()
    last = brought[brought.rfind(b"HTTP/1.1 ") :]
    return int(last[len("HTTP/1.1 ") :][:3]), brought


async def test_other_spellings_of_a_request_are_served(api: aiohttp.ClientSession) -> None:
    """A job is told, and one is accepted, whoever writes the request."""
    for expected, requests in ((200, SERVED), (202, ACCEPTED)):
        for name, request in requests.items():
            status, brought = await answer_to(api, request)
            assert status == expected, (name, brought)


async def test_what_is_no_request_is_refused_in_a_sentence(api: aiohttp.ClientSession) -> None:
    """The answer is a problem document that says what to send; the next request is served."""
    for name, (request, expected, says) in REFUSED.items():
        status, brought = await answer_to(api, request)
        assert (status, b"application/problem+json" in brought) == (expected, True), (name, brought)
        assert says in brought.decode(), (name, brought)
    assert (await answer_to(api, get()))[0] == 200


async def test_two_requests_in_one_packet_have_two_answers(api: aiohttp.ClientSession) -> None:
    """The first is not the last on its connection."""
    first = get().replace(b"Connection: close\r\n", b"")
    status, brought = await answer_to(api, first + get())
    assert (status, brought.count(b"HTTP/1.1 200 OK")) == (200, 2)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_events_are_sent_whatever_was_seen(api: aiohttp.ClientSession, version: bytes) -> None:
    """A client that has seen none may say so with a blank header; HTTP/1.0 has no chunks."""
    for more in (
        b"",
        b"Last-Event-ID: \r\n",
        b"Last-Event-ID: 0\r\n",
        b"Accept: application/json\r\nRange: bytes=0-1\r\n",
    ):
        request = get(more, path=f"{STATUS}/events", version=version)
        status, brought = await answer_to(api, request, until=b"event: requested")
        assert (status, b"event: requested" in brought) == (200, True), more
