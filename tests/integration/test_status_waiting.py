"""Following a job over HTTP without asking all the time: conditional requests, long polls, server-sent events."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import aiohttp
import orjson
import pytest
from multidict import CIMultiDict

from consumers.projection.changes import Changes
from consumers.projection.handlers import Projection
from infra.api.routes.jobs import _wait_of
from infra.postgres import Database
from streams.jobs.events import JobEvent, JobId
from tests.api_server import api_settings, bearer, serving
from tests.conftest import Pool
from tests.facts import JOB, cancelled, completed, requested, started
from tests.waiting import wait_for


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """An API on the test's own database; reading jobs needs no broker."""
    async with serving(api_settings(database_url=database_url)) as session:
        yield session


@pytest.fixture
async def projection(database_url: str) -> AsyncIterator[Projection]:
    """What moves jobs on."""
    opened = Database(database_url, size=1)
    yield Projection(opened)
    await opened.close()


class Message(NamedTuple):
    """A server-sent event."""

    id: str
    event: str
    data: Any


async def messages(answer: aiohttp.ClientResponse) -> AsyncIterator[Message]:
    """Read messages until the stream ends."""
    fields: dict[str, str] = {}
    async for raw in answer.content:
        line = raw.decode().rstrip("\n")
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        else:
            if "data" in fields:
                yield Message(fields["id"], fields["event"], orjson.loads(fields["data"]))
            fields = {}


async def test_what_has_not_changed_is_not_sent_again(api: aiohttp.ClientSession, projection: Projection) -> None:
    """The tag stays as long as the answer does; 304 repeats it and has no body."""
    await projection.project([requested()])
    async with api.get(f"/api/jobs/{JOB}", headers=bearer()) as answer:
        tag = answer.headers["ETag"]
        assert (answer.headers["Cache-Control"], answer.headers["Vary"]) == ("private, no-cache", "Authorization")
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        async with api.get(f"/api/jobs/{JOB}", headers={**bearer(), "If-None-Match": known}) as answer:
            assert (answer.status, answer.headers["ETag"], await answer.read()) == (304, tag, b"")
    await projection.project([started()])
    async with api.get(f"/api/jobs/{JOB}", headers={**bearer(), "If-None-Match": tag}) as answer:
        assert (answer.status, (await answer.json())["status"]) == (200, "processing")
        assert answer.headers["ETag"] != tag


async def test_head_tells_the_tag_and_nothing_else(api: aiohttp.ClientSession, projection: Projection) -> None:
    """HEAD is GET without the body, also for those who ask whether the API lives; it used to be 405."""
    await projection.project([requested()])
    async with api.get(f"/api/jobs/{JOB}", headers=bearer()) as answer:
        tag = answer.headers["ETag"]
    async with api.head(f"/api/jobs/{JOB}", headers=bearer()) as answer:
        assert (answer.status, answer.headers["ETag"], await answer.read()) == (200, tag, b"")
    async with api.head("/healthz") as answer:
        assert answer.status == 200


async def test_a_caller_may_wait_for_the_end(api: aiohttp.ClientSession, projection: Projection) -> None:
    """`Prefer: wait` answers when the job ends, not when it merely moves, and the answer is the end."""
    await projection.project([requested()])

    async def ask() -> Any:
        async with api.get(f"/api/jobs/{JOB}", headers={**bearer(), "Prefer": "respond-async, wait=40"}) as answer:
            assert answer.headers["Preference-Applied"] == "wait=40"
            return (await answer.json())["status"]

    waiting = asyncio.create_task(ask())
    await projection.project([started()])
    assert not waiting.done()
    await projection.project([completed()])
    async with asyncio.timeout(20):
        assert await waiting == "completed"
        assert await ask() == "completed"


async def test_a_caller_may_wait_for_a_change(api: aiohttp.ClientSession, projection: Projection) -> None:
    """With a tag, the answer comes as soon as there is another one."""
    await projection.project([requested()])
    async with api.get(f"/api/jobs/{JOB}", headers=bearer()) as answer:
        tag = answer.headers["ETag"]

    async def ask() -> Any:
        headers = {**bearer(), "If-None-Match": tag, "Prefer": "wait=40"}
        async with api.get(f"/api/jobs/{JOB}", headers=headers) as answer:
            return (await answer.json())["status"]

    waiting = asyncio.create_task(ask())
    await projection.project([started()])
    async with asyncio.timeout(20):
        assert await waiting == "processing"


async def test_whoever_waits_in_vain_hears_how_it_is(api: aiohttp.ClientSession, projection: Projection) -> None:
    """After its time a wait ends with the status as it is, or with 304; what is no wait is no reason to wait."""
    await projection.project([requested()])
    async with api.get(f"/api/jobs/{JOB}", headers={**bearer(), "Prefer": "wait=1"}) as answer:
        assert (answer.status, (await answer.json())["status"]) == (200, "pending")
        tag = answer.headers["ETag"]
    async with api.get(f"/api/jobs/{JOB}", headers={**bearer(), "Prefer": "wait=1", "If-None-Match": tag}) as answer:
        assert answer.status == 304
    lines = CIMultiDict([*bearer().items(), ("Prefer", "return=minimal"), ("Prefer", "wait=1"), ("Prefer", "wait=40")])
    async with api.get(f"/api/jobs/{JOB}", headers=lines) as answer:
        assert answer.headers["Preference-Applied"] == "wait=1", "the first of several lines that says one"
    for prefer in ("wait", "wait=soon", "wait=-1", "wait=0", "return=minimal", "awaits=30"):
        async with asyncio.timeout(10), api.get(f"/api/jobs/{JOB}", headers={**bearer(), "Prefer": prefer}) as answer:
            assert (answer.status, answer.headers.get("Preference-Applied")) == (200, None)


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        *(("wait=30", 30), ("WAIT = 30", 30), ('wait="30"', 30), ("respond-async, wait=5;x=y", 5), ("wait=0030", 30)),
        *(
            ("wait=50", 50),
            ("wait=51", 50),
            ("wait=86400000", 50),
            (f"wait={'9' * 5_000}", 50),
            (f"wait={'0' * 90}7", 7),
        ),
        *((odd, None) for odd in ("", "wait", "wait=", "wait=-1", "wait=1.5", "wait=1e3", "wait=\u0663", "awaits=3")),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_wait_is_read_in_each_form(prefer: str, seconds: int | None) -> None:
    """RFC 7240: names in any letters, values in quotes or not, parameters behind; too much is what there is at most."""
    assert _wait_of(prefer) == (None if seconds is None else timedelta(seconds=seconds))


async def test_many_who_wait_cost_no_more_than_one(database_url: str, projection: Projection) -> None:
    """A hundred who wait for a hundred jobs share the one connection that there is, and each hears of its own job."""
    jobs = [JobId(uuid4()) for _ in range(100)]
    await projection.project([requested(job=job) for job in jobs])
    settings = api_settings(database_url=database_url).model_copy(update={"database_pool_size": 1})
    async with serving(settings) as api:

        async def ask(job: JobId) -> Any:
            async with api.get(f"/api/jobs/{job}", headers={**bearer(), "Prefer": "wait=50"}) as answer:
                return (await answer.json())["status"]

        waiting = [asyncio.create_task(ask(job)) for job in jobs]
        await projection.project([completed(job=job) for job in jobs])
        async with asyncio.timeout(40):
            assert await asyncio.gather(*waiting) == ["completed"] * 100


async def test_events_come_as_they_happen_and_end_with_the_job(
    api: aiohttp.ClientSession, projection: Projection
) -> None:
    """Each event has an ID to resume after, its kind, and the CloudEvent; after the last one the stream is over."""
    await projection.project([requested()])
    seen: list[Message] = []
    async with asyncio.timeout(30), api.get(f"/api/jobs/{JOB}/events", headers=bearer()) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store, no-transform"
        async for message in messages(answer):
            seen.append(message)
            following: dict[str, Sequence[JobEvent]] = {"requested": [started()], "started": [completed()]}
            await projection.project(following.get(message.event, []))
    assert [message.event for message in seen] == ["requested", "started", "completed"]
    assert [message.data["type"] for message in seen] == [f"teamfit.job.{message.event}.v1" for message in seen]

    resumed = {**bearer(), "Last-Event-ID": seen[0].id}
    async with asyncio.timeout(30), api.get(f"/api/jobs/{JOB}/events", headers=resumed) as answer:
        assert [message async for message in messages(answer)] == seen[1:]
    # 204 is how a browser is told not to come back.
    async with api.get(f"/api/jobs/{JOB}/events", headers={**bearer(), "Last-Event-ID": seen[-1].id}) as answer:
        assert answer.status == 204


async def test_a_job_that_starts_over_goes_on_with_its_events(
    api: aiohttp.ClientSession, projection: Projection
) -> None:
    """The end of an earlier run is not the end of the stream."""
    await projection.project([requested(), cancelled(), requested(run=2)])
    async with asyncio.timeout(30), api.get(f"/api/jobs/{JOB}/events", headers=bearer()) as answer:
        kinds = []
        async for message in messages(answer):
            kinds.append(message.event)
            if len(kinds) == 3:
                await projection.project([completed(run=2)])
    assert kinds == ["requested", "cancelled", "requested", "completed"]


@pytest.mark.parametrize("path", ["", "/events"])
async def test_nobody_follows_another_organizations_job(
    api: aiohttp.ClientSession, projection: Projection, path: str
) -> None:
    """It is as unknown as one that never was, however one asks; an ID that is none is named."""
    await projection.project([requested()])
    for job_id, headers in ((JOB, bearer("rival")), (uuid4(), bearer())):
        async with api.get(f"/api/jobs/{job_id}{path}", headers={**headers, "Prefer": "wait=30"}) as answer:
            assert (answer.status, answer.content_type) == (404, "application/problem+json")
    async with api.get(f"/api/jobs/nonsense{path}", headers=bearer()) as answer:
        assert (answer.status, (await answer.json())["code"]) == (422, "invalid_request")


async def test_an_event_id_that_is_none_is_named(api: aiohttp.ClientSession, projection: Projection) -> None:
    """The header is checked like a field; a number of any other size too."""
    await projection.project([requested()])
    for last in ("first", "-1", "9" * 30):
        async with api.get(f"/api/jobs/{JOB}/events", headers={**bearer(), "Last-Event-ID": last}) as answer:
            (error,) = (await answer.json())["errors"]
            assert (answer.status, error["field"]) == (422, "Last-Event-ID")
            assert error["message"].startswith("must be ")


async def test_an_old_job_has_no_events(api: aiohttp.ClientSession, database: Pool) -> None:
    """A job of the Celery days, or one whose events are past their retention, is told at once to be over."""
    await database.execute(
        "INSERT INTO customization_jobs (job_id, organization_id, status) VALUES ($1, 'acme', 'completed')", JOB
    )
    async with api.get(f"/api/jobs/{JOB}/events", headers=bearer()) as answer:
        assert answer.status == 204


async def test_nobody_looks_when_nobody_waits(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look at the database begins with the first who waits, and ends a moment after the last."""
    monkeypatch.setattr("consumers.projection.changes._LINGER_S", 0.05)
    opened = Database(database_url, size=1)
    changes = Changes(opened)
    for _ in range(2):
        with changes.of(UUID(int=1)) as changed:
            changed.clear()
            async with asyncio.timeout(10):
                await changed.wait()
            looking = changes._looking
            assert looking is not None
        await wait_for(looking.done, what="the looking to end")
    await opened.close()


async def test_one_who_comes_while_the_looking_ends_is_looked_for(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listener takes a moment to end; whoever comes in that moment used to be looked for by nobody."""
    monkeypatch.setattr("consumers.projection.changes._LINGER_S", 0.0)
    opened = Database(database_url, size=1)
    changes = Changes(opened)
    ends, listen = asyncio.Event(), changes._listener.run

    async def listen_and_end_late() -> None:
        try:
            await listen()
        finally:
            ends.set()
            await asyncio.sleep(0.05)

    monkeypatch.setattr(changes._listener, "run", listen_and_end_late)
    with changes.of(UUID(int=1)):
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await ends.wait()
        with changes.of(UUID(int=1)) as changed:
            changed.clear()
            await changed.wait()
    await opened.close()


async def test_what_is_told_wakes_without_a_look(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notice wakes those whose job it names; who waits for the end alone sleeps on while the job goes on."""
    for name in ("_SELDOM_S", "_OFTEN_S"):
        monkeypatch.setattr(f"consumers.projection.changes.{name}", 3_600.0)
    opened = Database(database_url, size=2)
    changes, projection = Changes(opened), Projection(opened)
    looked, look = [], changes._marks

    async def count(job_ids: list[str]) -> Any:
        looked.append(job_ids)
        return await look(job_ids)

    monkeypatch.setattr(changes, "_marks", count)
    await projection.project([requested()])
    with changes.of(JOB) as changed, changes.of(JOB, only_end=True) as ended:
        await wait_for(lambda: changes._listener.is_up, what="the listener")
        await wait_for(lambda: not changes._look_now.is_set(), what="the look after it")
        looked.clear()
        changed.clear()
        ended.clear()
        await projection.project([started()])
        await wait_for(changed.is_set, what="the change")
        assert not ended.is_set()
        await projection.project([completed()])
        await wait_for(ended.is_set, what="the end")
        assert not looked
    changes.end()
    await opened.close()
