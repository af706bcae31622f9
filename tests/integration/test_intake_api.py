"""Requesting activities over HTTP, with a real broker and a real Postgres."""

import asyncio
import gzip
import io
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import aiohttp
import orjson
import pytest

from infra.clock import SystemClock
from infra.local.servers import start_valkey
from infra.postgres import Database
from producers.intake import Intake
from producers.turns import Turns
from streams.delivery.deliveries import Record
from streams.delivery.publisher import BrokerDown
from streams.delivery.traces import Trace
from streams.jobs.events import JobRequested, Requested, parse_event
from streams.jobs.facts import job_requested
from streams.jobs.job_ids import job_id_for
from streams.jobs.ownership import Ownership
from tests.api_server import UNUSED_URL, api_settings, bearer, serving
from tests.conftest import Pool
from tests.organizations import add_organizations
from tests.stream_entries import entries_of

ROUTE = "/api/activities/generate-custom"


def body(organization: str = "acme", **changes: Any) -> dict[str, Any]:
    """Return a good request's body, with changes."""
    return {
        "organization_id": organization,
        "team_id": f"{organization}-team",
        "requirements": "Two hours outdoors",
        **changes,
    }


@pytest.fixture
async def customers(database: Pool) -> None:
    """The organizations of the TEAMFIT backend."""
    await add_organizations(database)


@pytest.fixture
async def api(database_url: str, database: Pool, redis_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """An API with everything it needs."""
    await add_organizations(database)
    async with serving(api_settings(database_url=database_url, broker_url=redis_url)) as session:
        yield session


async def published(redis_url: str) -> list[JobRequested]:
    """Return the request events in the stream."""
    entries = await entries_of(redis_url, "job-requests")
    events = [parse_event(fields[b"event"]) for fields in entries]
    assert [fields[b"key"].decode() for fields in entries] == [str(event.job_id) for event in events]
    return [event for event in events if isinstance(event, JobRequested)]


async def test_a_request_is_recorded_published_and_can_be_polled(
    api: aiohttp.ClientSession, database: Pool, redis_url: str
) -> None:
    """The 202 names the job; its event is in the stream, its row in Postgres, and its status can be read at once."""
    async with api.post(ROUTE, json=body(), headers=bearer()) as answer:
        accepted = await answer.json()
    job_id = UUID(accepted["job_id"])
    assert answer.status == 202
    assert accepted == {
        "success": True,
        "job_id": str(job_id),
        "status": "processing",
        "status_url": f"/api/jobs/{job_id}",
    }
    assert answer.headers["Location"] == accepted["status_url"]
    (event,) = await published(redis_url)
    assert (event.job_id, event.run, event.data.team_id) == (job_id, 1, "acme-team")
    stored = await database.fetchval("SELECT event::text FROM job_requests WHERE job_id = $1", job_id)
    assert JobRequested.model_validate_json(stored) == event
    async with api.get(accepted["status_url"], headers=bearer()) as answer:
        assert (answer.status, (await answer.json())["status"]) == (200, "pending")


@pytest.mark.parametrize(
    ("organization", "changes", "status", "code"),
    [
        ("free", {}, 402, "subscription_required"),
        ("shady", {}, 403, "trust_too_low"),
        ("used", {}, 429, "quota_exceeded"),
        ("acme", {"team_id": "rival-team"}, 404, "team_not_found"),
        ("nobody", {}, 404, "organization_not_found"),
    ],
)
async def test_a_refusal_is_told_at_once(
    api: aiohttp.ClientSession, redis_url: str, organization: str, changes: dict[str, str], status: int, code: str
) -> None:
    """Each rule has its status and its code, and nothing is recorded or published."""
    async with api.post(ROUTE, json=body(organization, **changes), headers=bearer(organization)) as answer:
        problem = await answer.json()
    assert (answer.status, answer.content_type, problem["code"]) == (status, "application/problem+json", code)
    assert (problem["type"], problem["status"]) == ("about:blank", status)
    assert await published(redis_url) == []
    if status == 429:
        assert int(answer.headers["Retry-After"]) > 0


async def test_nobody_requests_for_another_organization(api: aiohttp.ClientSession, redis_url: str) -> None:
    """The organization in the body must be the token's."""
    async with api.post(ROUTE, json=body("acme"), headers=bearer("rival")) as answer:
        assert (answer.status, (await answer.json())["code"]) == (403, "wrong_organization")
    assert await published(redis_url) == []


async def test_an_idempotency_key_makes_a_repeat_the_same_job(
    api: aiohttp.ClientSession, database: Pool, redis_url: str
) -> None:
    """Repeats, at the same time too, name one job and publish one event, even when the quota has run out meanwhile."""

    async def request() -> str:
        async with api.post(ROUTE, json=body(), headers={**bearer(), "Idempotency-Key": "order-42"}) as answer:
            assert answer.status == 202
            return str((await answer.json())["job_id"])

    job_ids = set(await asyncio.gather(*(request() for _ in range(8))))
    await database.execute("UPDATE subscriptions SET monthly_quota = 0")
    job_ids.add(await request())
    assert len(job_ids) == 1
    assert len(await published(redis_url)) == 1


async def test_an_idempotency_key_belongs_to_its_organization(api: aiohttp.ClientSession) -> None:
    """Two organizations that use the same key get two jobs."""
    job_ids = set()
    for organization in ("acme", "rival"):
        headers = {**bearer(organization), "Idempotency-Key": "1"}
        async with api.post(ROUTE, json=body(organization), headers=headers) as answer:
            job_ids.add((await answer.json())["job_id"])
    assert len(job_ids) == 2


async def test_a_key_is_not_used_for_another_request(api: aiohttp.ClientSession, redis_url: str) -> None:
    """The same key with another body is the caller's mistake, and is said to be."""
    headers = {**bearer(), "Idempotency-Key": "order-42"}
    async with api.post(ROUTE, json=body(), headers=headers) as answer:
        assert answer.status == 202
    async with api.post(ROUTE, json=body(requirements="Something else"), headers=headers) as answer:
        assert (answer.status, (await answer.json())["code"]) == (422, "idempotency_key_reused")
    assert len(await published(redis_url)) == 1


async def test_a_key_is_not_used_again_for_what_only_the_stream_knows(
    api: aiohttp.ClientSession, database: Pool, database_url: str
) -> None:
    """The first try was published, or came by the client, and was never recorded: another body would not be run."""
    headers = {**bearer(), "Idempotency-Key": "order-42"}
    event = job_requested(
        job_id=job_id_for("acme", "order-42"), at=SystemClock().now(), idempotency_key="order-42", **body()
    )
    stage = Database(database_url, size=1)
    await Ownership(stage, timeout=timedelta(seconds=5)).check(event)
    await stage.close()
    async with api.post(ROUTE, json=body(requirements="Something else"), headers=headers) as answer:
        assert (answer.status, (await answer.json())["code"]) == (422, "idempotency_key_reused")
    assert await database.fetchval("SELECT count(*) FROM job_requests") == 0
    async with api.post(ROUTE, json=body(), headers=headers) as answer:
        assert (answer.status, (await answer.json())["job_id"]) == (202, str(event.job_id))


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd", "gzip, gzip", "GZIP"])
async def test_a_compressed_body_is_refused_by_its_header(api: aiohttp.ClientSession, coding: str) -> None:
    """It is said what to leave out, also without a token; `identity` and an empty header mean nothing."""
    packed = gzip.compress(orjson.dumps(body()))
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    for more in ({}, bearer()):
        async with api.post(ROUTE, data=io.BytesIO(packed), headers=headers | more) as answer:
            document = await answer.json()
            assert (answer.status, document["code"]) == (415, "content_encoding")
            assert document["detail"].startswith("Content-Encoding: ")
            assert answer.headers["Accept-Encoding"] == "identity"
    for plain in ("identity", "Identity"):
        headers = {**bearer(), "Content-Type": "application/json", "Content-Encoding": plain}
        async with api.post(ROUTE, data=io.BytesIO(orjson.dumps(body())), headers=headers) as answer:
            assert answer.status == 202
    async with api.get("/healthz", headers={"Content-Encoding": coding}) as answer:
        assert answer.status == 200


@pytest.mark.usefixtures("customers")
async def test_a_broker_that_is_away_leaves_nothing_behind(database_url: str, database: Pool) -> None:
    """The caller hears 503 and when to come back; no job is recorded; once the broker is there, the same API works."""
    with start_valkey(append_only=False) as valkey:
        async with serving(api_settings(database_url=database_url, broker_url=valkey.url)) as api:
            valkey.kill()
            async with api.post(ROUTE, json=body(), headers=bearer()) as answer:
                problem = await answer.json()
            assert (answer.status, problem["code"]) == (503, "broker_unavailable")
            assert problem["detail"] == "Connection to broker failed"
            assert int(answer.headers["Retry-After"]) > 0
            assert await database.fetchval("SELECT count(*) FROM job_requests") == 0
            assert await database.fetchval("SELECT count(*) FROM scheduled_events") == 0
            async with api.get("/readyz") as answer:
                assert (answer.status, list((await answer.json())["reasons"])) == (503, ["broker"])
            valkey.restart()
            async with api.post(ROUTE, json=body(), headers=bearer()) as answer:
                assert answer.status == 202


class Unsure:
    """A broker of which nobody knows whether it has taken the records."""

    async def publish(self, records: Sequence[Record]) -> None:
        raise BrokerDown("no answer", maybe_written=True)


@pytest.mark.usefixtures("customers")
async def test_an_unconfirmed_publish_is_repaired(database_url: str, database: Pool) -> None:
    """The job is recorded, and the very same record is kept to be published again soon, in the same transaction."""
    opened = Database(database_url, size=1)
    intake = Intake(opened, Unsure(), SystemClock(), 0.5, Turns(1))
    job_id = await intake.accept(Requested(**body()), idempotency_key=None, trace=Trace())
    await opened.close()
    recorded = await database.fetchval("SELECT event::text FROM job_requests WHERE job_id = $1", job_id)
    again = await database.fetchrow("SELECT topic, key, event, due_at - now() < '10 s' AS soon FROM scheduled_events")
    assert again is not None
    assert (again["topic"], again["key"], again["soon"]) == ("job-requests", str(job_id).encode(), True)
    assert parse_event(again["event"]) == JobRequested.model_validate_json(recorded)


@pytest.mark.usefixtures("customers")
async def test_a_silent_broker_counts_as_unsure(database_url: str, database: Pool) -> None:
    """A broker that takes the connection and never answers keeps no caller waiting; the event is sent again."""
    visitors: list[asyncio.StreamWriter] = []

    async def swallow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visitors.append(writer)

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    silent = api_settings(database_url=database_url, broker_url=f"redis://127.0.0.1:{port}/0")
    async with serving(silent) as api, api.post(ROUTE, json=body(), headers=bearer()) as answer:
        recorded = await database.fetchval("SELECT count(*) FROM job_requests")
        scheduled = await database.fetchval("SELECT count(*) FROM scheduled_events")
        assert (answer.status, recorded, scheduled) == (202, 1, 1)
    server.close()
    for visitor in visitors:
        visitor.close()
        await visitor.wait_closed()


async def test_a_postgres_that_is_away_is_said_to_be(redis_url: str) -> None:
    """Without the anchor no request is taken: 503, and nothing is published."""
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    async with serving(api_settings(database_url=nowhere, broker_url=redis_url)) as api:
        async with api.post(ROUTE, json=body(), headers=bearer()) as answer:
            problem = await answer.json()
            assert (answer.status, problem["code"]) == (503, "database_unavailable")
            assert "Retry-After" in answer.headers
        async with api.get("/readyz") as answer:
            assert (answer.status, list((await answer.json())["reasons"])) == (503, ["database"])
    assert await published(redis_url) == []


async def test_readiness_names_everything_that_is_away() -> None:
    """With nothing there the API starts, lives, and says that it is not ready, without telling addresses."""
    nowhere = api_settings(database_url="postgresql://nobody@127.0.0.1:1/nothing", broker_url=UNUSED_URL)
    async with serving(nowhere) as api:
        async with api.get("/healthz") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ok"})
        async with api.get("/readyz") as answer:
            text = await answer.text()
    assert set(orjson.loads(text)["reasons"]) == {"database", "broker"}
    assert "127.0.0.1" not in text


async def test_metrics_are_in_prometheus_format(api: aiohttp.ClientSession) -> None:
    """A scraper finds the pipeline's metrics."""
    async with api.get("/metrics") as answer:
        assert answer.content_type == "text/plain"
        assert "teamfit_jobs_total" in await answer.text()
