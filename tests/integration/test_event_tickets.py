"""A ticket in the address opens the event stream of one job, once, for a browser's `EventSource`."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import uuid4

import aiohttp
import pytest
import uvicorn
from multidict import CIMultiDict
from structlog.testing import capture_logs

from consumers.projection.handlers import Projection
from infra.api import create_api
from infra.api.limits import StreamLimits
from infra.api.server import configuration
from infra.api.tickets import HiddenTickets
from infra.errors import Refused
from infra.postgres import Database
from streams.jobs.events import JobId
from tests.api_server import api_settings, bearer, serving
from tests.conftest import Pool
from tests.facts import JOB, completed, requested
from tests.waiting import wait_for

EVENTS = f"/api/jobs/{JOB}/events"
OTHER_JOB = JobId(uuid4())


@pytest.fixture
async def apis(database_url: str) -> AsyncIterator[tuple[aiohttp.ClientSession, aiohttp.ClientSession]]:
    """Two API processes' worth of API on one database, with a job that has ended."""
    opened = Database(database_url, size=1)
    await Projection(opened).project([requested(), completed(), requested(job=OTHER_JOB)])
    await opened.close()
    settings = api_settings(database_url=database_url)
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(serving(settings)), await stack.enter_async_context(serving(settings))


async def ticket_for(http: aiohttp.ClientSession, job: object = JOB) -> str:
    """Ask for a ticket; return the address that it opens."""
    async with http.post(f"/api/jobs/{job}/events-ticket", headers=bearer()) as answer:
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
        body = await answer.json()
    assert body["events_url"] == f"/api/jobs/{job}/events?ticket={body['ticket']}"
    return str(body["events_url"])


async def kinds(http: aiohttp.ClientSession, address: str) -> list[str]:
    """Return the kinds of events that a stream has."""
    async with asyncio.timeout(30), http.get(address) as answer:
        assert answer.status == 200, await answer.text()
        return [line[7:].decode().strip() async for line in answer.content if line.startswith(b"event: ")]


async def code_of(http: aiohttp.ClientSession, address: str) -> tuple[int, str]:
    """Return how an address is refused."""
    async with http.get(address) as answer:
        return answer.status, (await answer.json())["code"]


async def test_a_ticket_of_one_process_opens_the_stream_at_another_once(
    apis: tuple[aiohttp.ClientSession, aiohttp.ClientSession], database: Pool
) -> None:
    """Without a token, for this job; the second use is refused everywhere, and nothing of it is kept."""
    here, there = apis
    address = await ticket_for(here)
    assert await database.fetchval("SELECT count(*) FROM event_tickets") == 1
    assert await kinds(there, address) == ["requested", "completed"]
    for http in apis:
        assert await code_of(http, address) == (401, "ticket_invalid")
    assert await database.fetchval("SELECT count(*) FROM event_tickets") == 0


async def test_of_twenty_that_show_a_ticket_at_once_one_is_let_in(
    apis: tuple[aiohttp.ClientSession, aiohttp.ClientSession],
) -> None:
    """However they are spread over the processes."""
    address = await ticket_for(apis[0])

    async def status(http: aiohttp.ClientSession) -> int:
        async with http.get(address) as answer:
            return answer.status

    statuses = await asyncio.gather(*(status(apis[number % 2]) for number in range(20)))
    assert sorted(statuses) == [200] + [401] * 19


async def test_a_page_that_was_cut_off_goes_on_with_a_new_ticket(
    apis: tuple[aiohttp.ClientSession, aiohttp.ClientSession],
) -> None:
    """A new `EventSource` cannot send `Last-Event-ID`, so the address has it as `after`."""
    here, _ = apis
    async with here.get(EVENTS, headers=bearer()) as answer:
        ids = [line[4:].decode().strip() async for line in answer.content if line.startswith(b"id: ")]
    assert await kinds(here, f"{await ticket_for(here)}&after={ids[0]}") == ["completed"]
    async with here.get(f"{await ticket_for(here)}&after={ids[1]}") as answer:
        assert answer.status == 204


@pytest.mark.parametrize("shown", ["other-job", "late", "empty", "nonsense", "%00", "%F0%9F%8D%80", "two"])
async def test_what_is_no_ticket_for_this_job_is_refused(
    apis: tuple[aiohttp.ClientSession, aiohttp.ClientSession], database: Pool, shown: str
) -> None:
    """Another job's, one that is a minute old, and whatever a program might send."""
    here, _ = apis
    if shown == "other-job":
        address = f"{EVENTS}?{(await ticket_for(here, OTHER_JOB)).partition('?')[2]}"
    elif shown == "late":
        address = await ticket_for(here)
        await database.execute("UPDATE event_tickets SET expires_at = expires_at - interval '61 seconds'")
    elif shown == "two":
        address = f"{await ticket_for(here)}&ticket=another"
    else:
        address = f"{EVENTS}?ticket={shown.removeprefix('empty')}"
    assert await code_of(here, address) == (401, "ticket_invalid")


async def _nothing(_database: Pool, _patch: pytest.MonkeyPatch) -> None:
    """The request itself is wrong."""


async def _opened_too_fast(_database: Pool, patch: pytest.MonkeyPatch) -> None:
    def admit(_limits: StreamLimits, _organization_id: str) -> None:
        raise Refused("too_many_streams", "streams are opened too fast")

    patch.setattr(StreamLimits, "admit", admit)


async def _archive_away(database: Pool, _patch: pytest.MonkeyPatch) -> None:
    await database.execute("ALTER TABLE job_events RENAME TO job_events_away")


async def _archive_back(database: Pool) -> None:
    await database.execute("ALTER TABLE IF EXISTS job_events_away RENAME TO job_events")


REFUSALS = {
    "a number that is none": (_nothing, {"Last-Event-ID": "abc"}, "", 422),
    "two numbers": (_nothing, CIMultiDict([("Last-Event-ID", "1"), ("Last-Event-ID", "2")]), "", 422),
    "a place that is none": (_nothing, {}, "&after=-1", 422),
    "a place given twice": (_nothing, {}, "&after=1&after=2", 422),
    "a body that is compressed": (_nothing, {"Content-Encoding": "gzip"}, "", 415),
    "too many streams": (_opened_too_fast, {}, "", 429),
    "Postgres without its tables": (_archive_away, {}, "", 503),
}


@pytest.mark.parametrize("why", REFUSALS)
async def test_what_refuses_the_stream_leaves_the_ticket(
    apis: tuple[aiohttp.ClientSession, aiohttp.ClientSession],
    database: Pool,
    monkeypatch: pytest.MonkeyPatch,
    why: str,
) -> None:
    """Whatever it is, the same address opens the stream once the cause is gone; then the ticket is used up."""
    spoil, headers, more, status = REFUSALS[why]
    here, _ = apis
    address = await ticket_for(here)
    await spoil(database, monkeypatch)
    body = b"x" if status == 415 else None
    async with here.get(address + more, headers=headers, data=body) as answer:
        assert answer.status == status, await answer.text()
    monkeypatch.undo()
    await _archive_back(database)
    assert await kinds(here, address) == ["requested", "completed"]
    assert await code_of(here, address) == (401, "ticket_invalid")


async def test_who_asks_for_the_headers_alone_leaves_the_ticket(
    apis: tuple[aiohttp.ClientSession, aiohttp.ClientSession],
) -> None:
    """HEAD is safe: a program that looks at an address before a page opens it does the page no harm."""
    here, _ = apis
    address = await ticket_for(here)
    async with here.head(address) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
    assert await kinds(here, address) == ["requested", "completed"]


async def test_a_job_that_is_gone_takes_no_ticket(
    apis: tuple[aiohttp.ClientSession, aiohttp.ClientSession], database: Pool
) -> None:
    """Erased meanwhile, it is as unknown as with a token."""
    here, _ = apis
    address = await ticket_for(here)
    for table in ("customization_jobs", "job_requests"):
        await database.execute(f"DELETE FROM {table}")
    assert await code_of(here, address) == (404, "job_not_found")
    assert await database.fetchval("SELECT count(*) FROM event_tickets") == 1


async def test_only_who_may_read_the_job_gets_a_ticket(
    apis: tuple[aiohttp.ClientSession, aiohttp.ClientSession],
) -> None:
    """Another organization's job is as unknown as one that never was; a ticket speaks for its own route alone."""
    here, _ = apis
    for job, headers, status in [
        (JOB, {}, 401),
        (JOB, bearer("acme", "viewer"), 403),
        (JOB, bearer("rival"), 404),
        (uuid4(), bearer(), 404),
    ]:
        async with here.post(f"/api/jobs/{job}/events-ticket", headers=headers) as answer:
            assert answer.status == status
    query = (await ticket_for(here)).partition("?")[2]
    assert await code_of(here, f"/api/jobs/{JOB}?{query}") == (401, "unauthenticated")


async def test_tickets_that_nobody_used_do_not_pile_up(
    apis: tuple[aiohttp.ClientSession, aiohttp.ClientSession], database: Pool
) -> None:
    """Whoever asks for the next one removes those that have ended; too many at once are refused."""
    here, _ = apis
    for _number in range(5):
        await ticket_for(here)
    await database.execute("UPDATE event_tickets SET expires_at = expires_at - interval '61 seconds'")
    await ticket_for(here)
    assert await database.fetchval("SELECT count(*) FROM event_tickets") == 1

    async def ask() -> int:
        async with here.post(f"/api/jobs/{JOB}/events-ticket", headers=bearer()) as answer:
            return answer.status

    assert 429 in await asyncio.gather(*(ask() for _ in range(100)))


async def test_a_ticket_stands_in_no_log(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Also where uvicorn's access log is on, and where the API fails: the ticket has left the address by then."""
    secret = "a-ticket-that-nobody-should-read"
    settings = api_settings(database_url=database_url)
    config = configuration(create_api(settings), settings, port=0)
    config.access_log = True
    server = uvicorn.Server(config)
    access = logging.getLogger("uvicorn.access")
    access.addHandler(caplog.handler)
    caplog.set_level(logging.DEBUG)
    running = asyncio.create_task(server.serve())
    try:
        await wait_for(lambda: server.started, what="the API to start")
        port = server.servers[0].sockets[0].getsockname()[1]
        with capture_logs() as lines:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
                for address in (f"{EVENTS}?ticket={secret}", f"/nowhere?ticket={secret}&a=b"):
                    async with http.get(address) as answer:
                        assert answer.status in {401, 404}
                        assert secret not in await answer.text()
        assert "/nowhere?a=b" in caplog.text, "the access log is on"
        assert secret not in caplog.text
        assert secret not in str(lines)
    finally:
        access.removeHandler(caplog.handler)
        server.should_exit = True
        await running


@pytest.mark.parametrize(
    ("query", "left", "shown"),
    [
        ("ticket=a", "", "a"),
        ("after=1&ticket=a", "after=1", "a"),
        ("ticket=a&after=1", "after=1", "a"),
        ("ticket=a&ticket=b", "", "b"),
        ("tickets=a", "tickets=a", None),
        ("a=ticket", "a=ticket", None),
        ("ticket", "", ""),
        ("%74icket=a", "", "a"),
    ],
)
async def test_every_ticket_leaves_the_address(query: str, left: str, shown: str | None) -> None:
    """However it is written, in any place; nothing else of the address changes."""
    scope = {"type": "http", "query_string": query.encode()}

    async def app(*_: object) -> None:
        pass

    await HiddenTickets(app)(scope, None, None)  # type: ignore[arg-type] # nobody receives or sends
    assert scope["query_string"] == left.encode()
    assert scope.get("teamfit.events_ticket") == shown
