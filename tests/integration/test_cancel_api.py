"""Withdrawing jobs over HTTP, with no worker anywhere."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import aiohttp
import orjson
import pytest

from infra.clock import SystemClock
from infra.database_url import read_database_url
from infra.errors import DependencyDown
from infra.local.servers import start_valkey
from infra.postgres import Database
from producers.cancellation import Cancellation
from streams.delivery.deliveries import Record
from streams.delivery.publisher import BrokerDown
from streams.jobs.cancellations import cancel_run
from streams.jobs.events import DEFAULT_REASON, CancelRequested, JobCancelled, JobCancelRequested, JobId, parse_event
from streams.jobs.job_ids import job_id_for
from streams.jobs.ownership import Ownership
from tests.api_server import api_settings, bearer, serving
from tests.conftest import Pool
from tests.organizations import add_organizations
from tests.stream_entries import entries_of

JSON = {"Content-Type": "application/json"}
REQUEST = "/api/activities/generate-custom"


@pytest.fixture
async def customers(database: Pool) -> None:
    """A customer, a rival, and those who are refused."""
    await add_organizations(database)


@pytest.fixture
async def api(database_url: str, database: Pool, redis_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """The API on clean servers, and its customers."""
    await add_organizations(database)
    async with serving(api_settings(database_url=database_url, broker_url=redis_url)) as session:
        yield session


async def ask(api: aiohttp.ClientSession, organization: str = "acme", **more: str) -> UUID:
    """Ask for activities; return the job."""
    body = {"organization_id": organization, "team_id": f"{organization}-team", "requirements": "Outdoors"} | more
    async with api.post(REQUEST, json=body, headers=bearer(organization)) as answer:
        document = await answer.json()
        assert answer.status == 202, document
        return UUID(document["job_id"])


async def cancelled_facts(redis_url: str) -> list[JobCancelled]:
    """The JobCancelled facts in the stream."""
    events = [parse_event(fields[b"event"]) for fields in await entries_of(redis_url, "job-events")]
    return [event for event in events if isinstance(event, JobCancelled)]


async def test_a_job_is_cancelled_and_shows_it_at_once(api: aiohttp.ClientSession, redis_url: str) -> None:
    """No worker runs: the decision is durable, its fact is in the stream, and who polls sees it."""
    job_id = await ask(api)
    async with api.post(
        f"/api/jobs/{job_id}/cancel", json={"reason": " the offsite is off "}, headers=bearer()
    ) as answer:
        assert (answer.status, await answer.json()) == (
            200,
            {"success": True, "job_id": str(job_id), "status": "cancelled", "run": 1},
        )
    (fact,) = await cancelled_facts(redis_url)
    assert (fact.job_id, fact.run, fact.data.reason) == (job_id, 1, "the offsite is off")
    async with api.get(f"/api/jobs/{job_id}", headers=bearer()) as answer:
        job = await answer.json()
    assert (job["status"], job["error_code"], job["error_message"]) == ("cancelled", "cancelled", "the offsite is off")
    assert datetime.fromisoformat(job["completed_at"]) == fact.time


async def test_repeating_it_changes_nothing(api: aiohttp.ClientSession, redis_url: str) -> None:
    """The same answer, the same fact, also when the repeat gives another reason or none."""
    job_id = await ask(api)
    for body in ({"reason": "first"}, {"reason": "second"}, None):
        async with api.post(f"/api/jobs/{job_id}/cancel", json=body, headers=bearer()) as answer:
            assert (answer.status, (await answer.json())["status"]) == (200, "cancelled")
    facts = await cancelled_facts(redis_url)
    assert {fact.data.reason for fact in facts} == {"first"}
    assert len({fact.id for fact in facts}) == 1


async def test_a_job_the_projection_knows_shows_its_cancellation_at_once(
    api: aiohttp.ClientSession, database: Pool
) -> None:
    """It need not wait until somebody folds the fact."""
    job_id = await ask(api)
    await database.execute(
        "INSERT INTO customization_jobs (job_id, organization_id, team_id, status) "
        "VALUES ($1, 'acme', 'acme-team', 'processing')",
        job_id,
    )
    await database.execute(
        "INSERT INTO job_events (job_id, event_id, run, type, organization_id, time, event) "
        "VALUES ($1, 'r', 1, 'teamfit.job.requested.v1', 'acme', now(), '{}')",
        job_id,
    )
    async with api.post(f"/api/jobs/{job_id}/cancel", headers=bearer()) as answer:
        assert answer.status == 200, await answer.text()
    async with api.get(f"/api/jobs/{job_id}", headers=bearer()) as answer:
        assert (await answer.json())["status"] == "cancelled"


@pytest.mark.parametrize("outcome", ["completed", "failed", "rejected"])
async def test_a_job_that_has_ended_stays_as_it_is(
    api: aiohttp.ClientSession, database: Pool, redis_url: str, outcome: str
) -> None:
    """The refusal says how it ended, and nothing is published."""
    job_id = await ask(api)
    await database.execute("INSERT INTO job_outcomes (job_id, run, outcome) VALUES ($1, 1, $2)", job_id, outcome)
    async with api.post(f"/api/jobs/{job_id}/cancel", headers=bearer()) as answer:
        problem = await answer.json()
    assert (answer.status, problem["code"]) == (409, f"job_{outcome}")
    assert await cancelled_facts(redis_url) == []


async def test_nobody_cancels_what_is_not_theirs(api: aiohttp.ClientSession, database: Pool) -> None:
    """Another organization's job is as unknown as one that never was."""
    job_id = await ask(api)
    for unknown, caller in ((job_id, "rival"), (uuid4(), "acme")):
        async with api.post(f"/api/jobs/{unknown}/cancel", headers=bearer(caller)) as answer:
            assert (answer.status, (await answer.json())["code"]) == (404, "job_not_found")
    async with api.post(f"/api/jobs/{job_id}/cancel") as answer:
        assert answer.status == 401
    assert await database.fetchval("SELECT count(*) FROM job_outcomes") == 0


async def test_a_job_of_the_celery_days_cannot_be_cancelled(api: aiohttp.ClientSession, database: Pool) -> None:
    """The pipeline knows nothing of it but its row, and says so."""
    job_id = uuid4()
    await database.execute(
        "INSERT INTO customization_jobs (job_id, organization_id, status) VALUES ($1, 'acme', 'PENDING')", job_id
    )
    async with api.post(f"/api/jobs/{job_id}/cancel", headers=bearer()) as answer:
        assert (answer.status, (await answer.json())["code"]) == (409, "job_not_cancellable")


@pytest.mark.usefixtures("customers")
async def test_without_a_broker_it_works_all_the_same(database_url: str, database: Pool) -> None:
    """The decision stands, and the fact waits in `scheduled_events`."""
    with start_valkey(append_only=False) as valkey:
        async with serving(api_settings(database_url=database_url, broker_url=valkey.url)) as api:
            job_id = await ask(api)
            valkey.kill()
            async with api.post(f"/api/jobs/{job_id}/cancel", headers=bearer()) as answer:
                assert (answer.status, (await answer.json())["status"]) == (200, "cancelled")
    kept = await database.fetchrow("SELECT topic, event FROM scheduled_events")
    assert kept is not None
    assert kept["topic"] == "job-events"
    assert isinstance(parse_event(kept["event"]), JobCancelled)


class AwayWithPostgres:
    """A broker that is away, and takes Postgres with it."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def publish(self, records: Sequence[Record]) -> None:
        await self.database.close()
        self.database._address = read_database_url("postgresql://nobody@127.0.0.1:1/nothing")
        raise BrokerDown("gone", maybe_written=False)


async def test_what_was_decided_is_a_success_whatever_comes_after(
    api: aiohttp.ClientSession, database_url: str, database: Pool
) -> None:
    """Broker and Postgres go away just after the commit: the caller hears of success; the reconciler tells the rest."""
    job_id = await ask(api)
    opened = Database(database_url, size=1)
    cancellation = Cancellation(opened, AwayWithPostgres(opened), SystemClock())
    end = await cancellation.cancel(JobId(job_id), organization_id="acme", reason="off")
    assert end.outcome == "cancelled"
    with pytest.raises(DependencyDown):
        async with opened.transaction():
            pass
    assert await database.fetchval("SELECT outcome FROM job_outcomes WHERE job_id = $1", job_id) == "cancelled"


async def test_a_request_for_later_waits(api: aiohttp.ClientSession, database: Pool, redis_url: str) -> None:
    """It is recorded and kept until it is due, nothing is published, and its status shows when it begins."""
    run_at = datetime.now(UTC) + timedelta(days=3)
    job_id = await ask(api, run_at=run_at.isoformat())
    assert await entries_of(redis_url, "job-requests") == []
    kept = await database.fetchrow("SELECT topic, key, event, due_at FROM scheduled_events")
    assert kept is not None
    assert (kept["topic"], kept["key"], kept["due_at"]) == ("job-requests", str(job_id).encode(), run_at)
    assert parse_event(kept["event"]).job_id == job_id
    async with api.get(f"/api/jobs/{job_id}", headers=bearer()) as answer:
        job = await answer.json()
    assert (job["status"], datetime.fromisoformat(job["run_at"])) == ("pending", run_at)
    async with api.post(f"/api/jobs/{job_id}/cancel", headers=bearer()) as answer:
        assert answer.status == 200
    async with api.get(f"/api/jobs/{job_id}", headers=bearer()) as answer:
        job = await answer.json()
    assert (job["status"], job["run_at"]) == ("cancelled", None)


async def test_a_delayed_request_is_repeated_like_any_other(api: aiohttp.ClientSession, database: Pool) -> None:
    """With an idempotency key the repeat is the same job; another time under the same key is another request."""
    run_at = datetime.now(UTC) + timedelta(days=3)
    body = {"organization_id": "acme", "team_id": "acme-team", "requirements": "Outdoors"}
    headers = bearer() | {"Idempotency-Key": "later"}
    answers = []
    for time in (run_at, run_at, run_at + timedelta(days=1)):
        async with api.post(REQUEST, json=body | {"run_at": time.isoformat()}, headers=headers) as answer:
            answers.append((answer.status, (await answer.json()).get("code")))
    assert answers == [(202, None), (202, None), (422, "idempotency_key_reused")]
    assert await database.fetchval("SELECT count(*) FROM scheduled_events") == 1


async def test_a_past_time_means_now(api: aiohttp.ClientSession, redis_url: str) -> None:
    """The request is published at once."""
    await ask(api, run_at="2020-01-01T00:00:00+00:00")
    assert len(await entries_of(redis_url, "job-requests")) == 1


@pytest.mark.parametrize(
    ("run_at", "code"),
    [
        ((datetime.now(UTC) + timedelta(days=367)).isoformat(), "run_at_too_far"),
        ("2031-04-01T09:30:00", "invalid_request"),
        ("tomorrow", "invalid_request"),
    ],
    ids=["too far ahead", "no time zone", "no time"],
)
async def test_a_time_that_is_none_is_refused(api: aiohttp.ClientSession, run_at: str, code: str) -> None:
    """Too far ahead, without a time zone, or no time at all: the answer names the field."""
    body = {"organization_id": "acme", "team_id": "acme-team", "requirements": "Outdoors", "run_at": run_at}
    async with api.post(REQUEST, data=orjson.dumps(body), headers=bearer() | {"Content-Type": "application/json"}) as a:
        problem = await a.json()
    assert (a.status, problem["code"]) == (422, code)
    assert "run_at" in problem["detail"]


async def test_a_cancellation_carries_the_trace_of_whoever_asked(
    api: aiohttp.ClientSession, database: Pool, redis_url: str
) -> None:
    """The fact has the headers of the request that led to it, as the job's other events have theirs."""
    job_id = await ask(api)
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {**bearer(), "traceparent": parent, "tracestate": "a=1"}
    async with api.post(f"/api/jobs/{job_id}/cancel", headers=headers) as answer:
        assert answer.status == 200
    (entry,) = await entries_of(redis_url, "job-events")
    fact = parse_event(entry[b"event"])
    assert (fact.traceparent, fact.tracestate) == (parent, "a=1")


def withdrawal(job_id: JobId, *, organization: str = "acme", run: int = 1) -> JobCancelRequested:
    """A cancellation as it comes by XADD."""
    data = CancelRequested(organization_id=organization, reason="the offsite is off")
    return JobCancelRequested(id="c", subject=job_id, time=datetime.now(UTC), run=run, data=data)


async def test_a_post_for_a_job_that_was_withdrawn_before_says_so(
    api: aiohttp.ClientSession, database: Pool, database_url: str, redis_url: str
) -> None:
    """It is refused with the reason, each time; nothing is recorded, published or charged, and another key is taken."""
    job_id = job_id_for("acme", "offsite-7")
    stage = Database(database_url, size=2)
    try:
        assert not await Ownership(stage, timeout=timedelta(seconds=5)).cancels_now(withdrawal(job_id))
    finally:
        await stage.close()
    body = {"organization_id": "acme", "team_id": "acme-team", "requirements": "Outdoors"}
    for _ in range(2):
        headers = bearer() | {"Idempotency-Key": "offsite-7"}
        async with api.post(REQUEST, json=body, headers=headers) as answer:
            problem = await answer.json()
        assert (answer.status, problem["code"]) == (409, "job_cancelled")
        assert "the offsite is off" in problem["detail"]
    assert not await database.fetchval("SELECT count(*) FROM job_requests")
    assert await entries_of(redis_url, "job-requests") == []
    async with api.post(REQUEST, json=body, headers=bearer() | {"Idempotency-Key": "offsite-8"}) as answer:
        assert answer.status == 202


@pytest.mark.parametrize(("organization", "run"), [("rival", 1), ("acme", 2)])
async def test_a_cancellation_that_is_not_the_jobs_refuses_no_post(
    api: aiohttp.ClientSession, database: Pool, organization: str, run: int
) -> None:
    """Neither another organization's, with the ID of this one's next key, nor one of a later run."""
    event = withdrawal(job_id := job_id_for("acme", "k"), organization=organization, run=run)
    await database.execute(
        "INSERT INTO early_cancellations (job_id, organization_id, event) VALUES ($1, $2, $3::jsonb)",
        *(job_id, organization, event.encode().decode()),
    )
    body = {"organization_id": "acme", "team_id": "acme-team", "requirements": "Outdoors"}
    async with api.post(REQUEST, json=body, headers=bearer() | {"Idempotency-Key": "k"}) as answer:
        assert (answer.status, (await answer.json())["job_id"]) == (202, str(job_id))


async def test_a_repeat_of_a_post_that_was_cancelled_is_the_same_job(api: aiohttp.ClientSession) -> None:
    """The job was recorded first; its status says that it was cancelled."""
    body = {"organization_id": "acme", "team_id": "acme-team", "requirements": "Outdoors"}
    found = set()
    for _ in range(2):
        async with api.post(REQUEST, json=body, headers=bearer() | {"Idempotency-Key": "k"}) as answer:
            assert answer.status == 202
            found.add((await answer.json())["job_id"])
        async with api.post(f"/api/jobs/{job_id_for('acme', 'k')}/cancel", headers=bearer()) as answer:
            assert answer.status == 200
    assert found == {str(job_id_for("acme", "k"))}


async def test_a_post_whose_first_try_only_the_stream_knows_says_that_its_job_was_cancelled(
    api: aiohttp.ClientSession, database: Pool, database_url: str
) -> None:
    """The first try was published, and not recorded; what came of it was cancelled before the repeat."""
    job_id = job_id_for("acme", "k")
    opened = Database(database_url, size=2)
    try:
        async with opened.transaction() as connection:
            await cancel_run(
                connection, job_id=job_id, run=1, organization_id="acme", reason="off", at=datetime.now(UTC)
            )
    finally:
        await opened.close()
    body = {"organization_id": "acme", "team_id": "acme-team", "requirements": "Outdoors"}
    async with api.post(REQUEST, json=body, headers=bearer() | {"Idempotency-Key": "k"}) as answer:
        assert (answer.status, (await answer.json())["code"]) == (409, "job_cancelled")
    assert not await database.fetchval("SELECT count(*) FROM job_requests")


@pytest.mark.parametrize("body", [None, {}, {"reason": None}], ids=str)
async def test_no_reason_may_be_written_in_any_way(
    api: aiohttp.ClientSession, redis_url: str, body: dict[str, None] | None
) -> None:
    """`null` is what many serializers write for nothing."""
    job_id = await ask(api)
    async with api.post(f"/api/jobs/{job_id}/cancel", data=orjson.dumps(body), headers=JSON | bearer()) as answer:
        assert answer.status == 200, await answer.text()
    (fact,) = await cancelled_facts(redis_url)
    assert fact.data.reason == DEFAULT_REASON
