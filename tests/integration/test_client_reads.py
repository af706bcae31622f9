"""What became of a job, as upstream services read it by the client: over a real API, which restarts and goes away."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import orjson
import pytest
from aiohttp import web
from aiokafka import AIOKafkaConsumer

from consumers.projection.handlers import Projection
from infra.api import create_api
from infra.api.leaving import Server
from infra.api.openapi_file import FILE
from infra.api.server import configuration
from infra.local.processes import free_port
from infra.postgres import Database
from producers.blocking import BlockingJobRequests
from producers.client import InvalidArgument, JobRequests, SubmitFailed
from producers.job_reader import Activity, InvalidApi, Job, JobNews, JobReader, ReadRefused, StillRunning
from streams.jobs.events import JobCancelRequested, JobId, JobRequested, parse_event
from streams.jobs.job_ids import job_id_for
from tests.api_server import api_settings, bearer, serving
from tests.conformance.brokers import tansu
from tests.facts import JOB, cancelled, completed, requested, started
from tests.served import served
from tests.waiting import wait_for

TOKEN = bearer()["Authorization"]
LONG, SHORT = timedelta(seconds=60), timedelta(seconds=0.6)


@pytest.fixture
async def projection(database_url: str) -> AsyncIterator[Projection]:
    """What moves jobs on."""
    opened = Database(database_url, size=1)
    yield Projection(opened)
    await opened.close()


@pytest.fixture
async def api_url(database_url: str) -> AsyncIterator[str]:
    """The address of an API on the test's database."""
    async with serving(api_settings(database_url=database_url)) as http:
        yield str(http._base_url)


@asynccontextmanager
async def api_at(port: int, database_url: str) -> AsyncIterator[Server]:
    """An API at this port, until the block ends."""
    settings = api_settings(database_url=database_url)
    server = Server(configuration(create_api(settings), settings, port=port))
    running = asyncio.create_task(server.serve())
    await wait_for(lambda: server.started, what="the API to start")
    try:
        yield server
    finally:
        server.should_exit = True
        await running


async def test_a_job_is_waited_for_before_it_is_known(api_url: str, projection: Projection) -> None:
    """What was sent into the stream is unknown to the API for a moment; then it runs, and then it has ended."""
    waiting = asyncio.create_task(JobReader(api_url, TOKEN).wait(JOB, timeout=LONG))
    await asyncio.sleep(0)
    await projection.project([requested()])
    await projection.project([started(), completed()])
    job = await waiting
    assert (job.job_id, job.status, job.has_ended) == (JOB, "completed", True)


async def test_a_restart_of_the_api_costs_no_event(database_url: str, projection: Projection) -> None:
    """Whoever follows or waits while an API process is replaced hears each event once, and the end."""
    port = free_port()
    reader = JobReader(f"http://127.0.0.1:{port}/", lambda: TOKEN)
    seen: list[JobNews] = []

    async def follow() -> None:
        async for one in reader.follow(JOB, timeout=LONG):
            seen.append(one)  # noqa: PERF401 - the test looks at it meanwhile

    following = asyncio.create_task(follow())  # no one answers yet
    waiting = asyncio.create_task(reader.wait(JOB, timeout=LONG))
    async with api_at(port, database_url) as server:
        await projection.project([requested()])
        await wait_for(lambda: [one.kind for one in seen] == ["requested"], what="the first event")
        await wait_for(lambda: len(server.server_state.tasks) == 2, what="both to be held")
    await projection.project([started()])
    async with api_at(port, database_url):
        await projection.project([completed()])
        async with asyncio.timeout(60):
            await following
            assert (await waiting).status == "completed"
    assert [one.kind for one in seen] == ["requested", "started", "completed"]
    assert [one.event["type"] for one in seen] == [f"teamfit.job.{one.kind}.v1" for one in seen]
    assert sorted({one.number for one in seen}) == [one.number for one in seen]


async def test_following_goes_on_behind_what_was_seen(api_url: str, projection: Projection) -> None:
    """By the event's number; of a job that has ended there is nothing more, and that ends it."""
    await projection.project([requested(), started(), cancelled()])
    reader = JobReader(api_url, TOKEN)
    first, *rest = [one async for one in reader.follow(JOB, timeout=LONG)]
    assert [one async for one in reader.follow(JOB, after=first.number, timeout=LONG)] == rest
    assert [one async for one in reader.follow(JOB, after=rest[-1].number, timeout=LONG)] == []


async def test_time_that_is_over_is_said_with_what_is_known(api_url: str, projection: Projection) -> None:
    """The job as it is; that it is unknown; that the API is away: each with what to look at."""
    await projection.project([requested()])
    with pytest.raises(StillRunning, match=f"job {JOB} is still pending after 0.6 s; it goes on") as caught:
        await JobReader(api_url, TOKEN).wait(JOB, timeout=SHORT)
    assert caught.value.job is not None
    news = JobReader(api_url, TOKEN).follow(JOB, timeout=SHORT)
    assert (await anext(news)).kind == "requested"
    with pytest.raises(StillRunning, match=f"job {JOB}"):
        await anext(news)
    for reader, why in (
        (JobReader(api_url, bearer("rival")["Authorization"]), "is the token its organization's?"),
        (JobReader("http://127.0.0.1:1/teamfit", TOKEN), r"http://127\.0\.0\.1:1/teamfit"),
    ):
        with pytest.raises(StillRunning, match=why):
            await reader.wait(JOB, timeout=SHORT)
        with pytest.raises(TimeoutError, match=why):
            await anext(reader.follow(JOB, timeout=SHORT))


async def test_a_refusal_names_the_argument_to_mend(api_url: str) -> None:
    """Asking again would not help, so it is said at once."""
    cases = (
        (JobReader(api_url, bearer("acme", "operator")["Authorization"]), 403, "insufficient_scope", "token: "),
        (JobReader(api_url, "not.a.token"), 401, "token_invalid", "token: "),
        (JobReader(f"{api_url}/api", TOKEN), 404, "not_found", "not_found"),
    )
    for reader, status, code, message in cases:
        with pytest.raises(ReadRefused, match=message) as caught:
            await reader.wait(JobId(uuid4()), timeout=LONG)
        assert (caught.value.status, caught.value.code) == (status, code)


@pytest.mark.parametrize(
    ("api_url", "token", "message"),
    [
        ("", "t", "api_url: must be the API's address"),
        ("teamfit.example.com", "t", "api_url: must be the API's address"),
        ("redis://localhost", "t", "api_url: must be the API's address"),
        ("https://:443", "t", "api_url: must be the API's address"),
        ("https://host:99999999", "t", "api_url: its port must be"),
        ("https://user:secret@host", "t", "api_url: must end with its path"),
        ("https://host/?token=1", "t", "api_url: must end with its path"),
        ("https://host", "", "token: must be a token"),
        ("https://host", "two words", "token: must be a token"),
        ("https://host", "line\nbreak", "token: must be a token"),
    ],
)
async def test_what_cannot_be_meant_is_named_when_it_is_opened(api_url: str, token: str, message: str) -> None:
    """By the name of the argument, without what it holds, before anything is sent."""
    with pytest.raises(InvalidApi, match=f"^{message}") as caught:
        JobReader(api_url, token)
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match=f"^{message}"):
        async with JobRequests.connect("redis://localhost", api_url=api_url, token=token):
            pass


async def test_without_an_address_nothing_can_be_asked(redis_url: str) -> None:
    """Sending works as before; reading says what is missing."""
    async with JobRequests.connect(redis_url) as requests:
        with pytest.raises(InvalidArgument, match=r"^api_url: is needed"):
            await requests.wait(JOB)
        with pytest.raises(InvalidArgument, match=r"^api_url: is needed"):
            requests.follow(JOB)


_JOB = {"job_id": str(JOB), "status": "completed", "created_at": "2031-04-01T09:30:00Z", "new_field": [1]}


async def _job(_request: web.Request) -> web.StreamResponse:
    return web.json_response(_JOB)


async def _in_chunks(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "application/json"})
    answer.enable_chunked_encoding()
    await answer.prepare(request)
    for byte in orjson.dumps(_JOB):
        await answer.write(bytes([byte]))
    return answer


def _once(first: web.Response) -> Any:
    answers = [first]

    async def handle(request: web.Request) -> web.StreamResponse:
        return answers.pop() if answers else await _job(request)

    return handle


@pytest.mark.parametrize(
    "handler",
    [
        _job,
        _in_chunks,
        *(_once(web.Response(status=status, text="<html>")) for status in (429, 502, 503, 504)),
        _once(web.Response(status=503, headers={"Retry-After": "0"})),
        _once(web.Response(text="<html>a proxy's page</html>")),
    ],
    ids=["whole", "chunks", "429", "502", "503", "504", "retry-after", "page"],
)
async def test_what_proxies_make_of_answers_is_read(handler: Any) -> None:
    """An answer in any framing, and what passes by itself; fields of a newer API are no reason to fail."""
    app = web.Application()
    app.router.add_get("/below/api/jobs/{job}", handler)
    async with served(app) as address:
        assert (await JobReader(f"{address}/below", TOKEN).wait(JOB, timeout=LONG)).status == "completed"


async def test_another_server_is_told_from_the_api() -> None:
    """A redirect, a page that is not there, and what is not HTTP at all."""
    app = web.Application()

    async def moved(_request: web.Request) -> web.Response:
        return web.Response(status=308, headers={"Location": "https://new/"})

    app.router.add_get("/old/{rest:.*}", moved)
    async with served(app) as address:
        with pytest.raises(ReadRefused, match="api_url: it redirects to https://new/"):
            await JobReader(f"{address}/old", TOKEN).wait(JOB, timeout=LONG)
        with pytest.raises(ReadRefused, match=r"api_url: is .* the API's own address"):
            await JobReader(address, TOKEN).wait(JOB, timeout=LONG)

    async def redis(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"-ERR wrong number of arguments for 'get' command\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(redis, "127.0.0.1", 0, family=socket.AF_INET) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(StillRunning, match="not HTTP"):
            await JobReader(f"http://127.0.0.1:{port}", TOKEN).wait(JOB, timeout=SHORT)


async def test_without_asyncio_it_is_the_same(api_url: str, redis_url: str, projection: Projection) -> None:
    """Waiting, following to the end, leaving early, and errors, in a thread that has no loop."""
    await projection.project([requested(), started(), completed()])

    def ask() -> tuple[str, list[str], str]:
        with BlockingJobRequests.connect(redis_url, api_url=api_url, token=lambda: TOKEN) as requests:
            kinds = [one.kind for one in requests.follow(JOB)]
            first = next(iter(requests.follow(JOB)))
            with pytest.raises(StillRunning):
                requests.wait(JobId(uuid4()), timeout=SHORT)
            return requests.wait(JOB).status, kinds, first.kind

    async with asyncio.timeout(60):
        assert await asyncio.to_thread(ask) == ("completed", ["requested", "started", "completed"], "requested")


def test_a_job_has_the_fields_that_the_api_documents() -> None:
    """All but what it waits for, which operators look at, and the constant `success`."""
    schemas = orjson.loads(FILE.read_bytes())["components"]["schemas"]
    assert set(Job.model_fields) == set(schemas["JobStatus"]["properties"]) - {"success", "waiting_for"}
    assert set(Activity.model_fields) == set(schemas["Activity"]["properties"])


async def test_requests_go_into_kafka_too() -> None:
    """The same events under the same keys, confirmed, by both clients; another job's may be in another partition."""
    wish = {"organization_id": "acme", "team_id": "t1", "requirements": "walk", "idempotency_key": "offsite"}
    job = job_id_for("acme", "offsite")
    with tansu() as broker:
        async with JobRequests.connect(broker.url(), source="hr") as requests:
            assert await requests.submit(**wish) == job  # type: ignore[arg-type] # all are texts
            await requests.cancel(job, organization_id="acme")

        def submit() -> JobId:
            with BlockingJobRequests.connect(broker.url(), source="hr") as requests:
                return requests.submit(**wish)  # type: ignore[arg-type] # the same

        assert await asyncio.to_thread(submit) == job
        servers = broker.url().removeprefix("kafka://")
        consumer = AIOKafkaConsumer("job-requests", bootstrap_servers=servers, auto_offset_reset="earliest")
        await consumer.start()
        try:
            async with asyncio.timeout(60):
                entries = [await consumer.getone() for _ in range(3)]
        finally:
            await consumer.stop()
    events = [parse_event(entry.value) for entry in entries]
    assert [type(event) for event in events] == [JobRequested, JobCancelRequested, JobRequested]
    assert [(event.job_id, event.source, entry.key) for event, entry in zip(events, entries, strict=True)] == [
        (job, "hr", events[0].key)
    ] * 3


@pytest.mark.parametrize(
    ("url", "message"), [("kafka://", "it has no host"), ("kafka://u:p@h", "hosts and ports alone")]
)
async def test_a_kafka_url_that_cannot_be_meant_is_refused(url: str, message: str) -> None:
    """At once, in one sentence."""
    with pytest.raises(ValueError, match=message):
        async with JobRequests.connect(url):
            pass


async def test_a_kafka_that_is_away_is_said_to_be() -> None:
    """As of Redis: what was not confirmed, and what to do."""
    async with JobRequests.connect("kafka://127.0.0.1:1") as requests:
        with pytest.raises(SubmitFailed, match=r"Connection to broker failed.*same idempotency keys") as caught:
            await requests.submit(organization_id="acme", team_id="t1", requirements="walk", idempotency_key="1")
    assert caught.value.job_ids == [job_id_for("acme", "1")]
