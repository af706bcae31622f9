"""A job ID that was used before, and one that names nothing: whoever sends such a request hears of it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from infra.local.organizations import BIRCH
from infra.local.stack import Stack
from infra.verify import verify
from producers.client import InvalidArgument, JobRequests
from streams.jobs.events import JobId
from tests.acceptance.customer import Customer, assert_three_activities, hand_written
from tests.conftest import Pool
from tests.waiting import wait_for

RESERVED = ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff")


def wish(job_id: str, **changes: Any) -> str:
    """Return a request event of Birch; `changes` replace fields of its data."""
    event = json.loads(hand_written(job_id, BIRCH.id, BIRCH.team.id, id=str(uuid4())))
    return json.dumps(event | {"data": event["data"] | changes})


async def letters_of(books: Pool, event: str, stages: int) -> list[asyncpg.Record]:
    """Return the failed events of an entry, once each stage has its own."""

    async def kept() -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = await books.fetch(
            "SELECT stage, error_type, error_message, job_id, organization_id FROM failed_events "
            "WHERE event = $1 ORDER BY stage",
            event.encode(),
        )
        return rows if len(rows) == stages else []

    return await wait_for(kept, what="each stage to keep a failed event")


@pytest.mark.usefixtures("forgery")
@pytest.mark.parametrize(
    "changes",
    [
        {"requirements": "Something else, indoors"},
        {"team_id": "another-team"},
        {"run_at": "2031-04-01T09:30:00Z"},
        {"run_at": "1999-04-01T09:30:00Z"},
    ],
    ids=lambda changes: next(iter(changes.values())),
)
@pytest.mark.parametrize("job_has_ended", [True, False])
async def test_another_wish_under_a_used_job_id_is_a_failed_event(
    customer: Customer, stack: Stack, books: Pool, changes: dict[str, str], *, job_has_ended: bool
) -> None:
    """The first wish holds and is charged once; the second one is refused by name, and verify tells it from forgery."""
    job_id = str(uuid4())
    second = wish(job_id, **changes)
    await customer.xadd("key", job_id, "event", wish(job_id))
    if job_has_ended:
        await _seen(customer, job_id)
        await customer.ended_job(job_id)
    await customer.xadd("key", job_id, "event", second)
    letters = await letters_of(books, second, stages=2)
    assert [(row["stage"], row["error_type"]) for row in letters] == [
        ("projection", "JobIdReused"),
        ("quota", "JobIdReused"),
    ]
    for row in letters:
        assert row["error_message"].startswith(f"subject: job {job_id} was asked for before with another wish")
        assert (str(row["job_id"]), row["organization_id"]) == (job_id, BIRCH.id)
    await _seen(customer, job_id)
    assert_three_activities(await customer.ended_job(job_id))
    assert await books.fetchval("SELECT count(*) FROM quota_ledger WHERE job_id = $1", JobId(letters[0]["job_id"])) == 1
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        findings = {one.name: one for one in (await verify(connection, examples=1_000)).findings}
    finally:
        await connection.close()
    assert not [one for one in findings["nothing forged"].examples if one.startswith(job_id)]
    assert len([one for one in findings["mistakes of senders"].examples if one.startswith(job_id)]) == 1
    assert findings["mistakes of senders"].violations == 0


@pytest.mark.usefixtures("forgery")
@pytest.mark.parametrize("delayed", [True, False])
async def test_what_http_has_accepted_holds_against_the_stream(
    customer: Customer, books: Pool, *, delayed: bool
) -> None:
    """Another wish under its job's ID is refused by name, before the job's time has come and after its end."""
    begins = datetime.now(UTC) + timedelta(days=1 if delayed else -1)
    status, accepted = await customer.post(run_at=begins.isoformat())
    assert status == 202, accepted
    job_id = accepted["job_id"]
    if not delayed:
        await customer.ended_job(job_id)
    second = wish(job_id, requirements="Something else, indoors")
    await customer.xadd("key", job_id, "event", second)
    for row in await letters_of(books, second, stages=2):
        assert row["error_type"] == "JobIdReused"
    job = await customer.job(job_id)
    assert job["status"] == ("pending" if delayed else "completed")


async def _seen(customer: Customer, job_id: str) -> None:
    async def seen() -> bool:
        async with customer.http.get(f"/api/jobs/{job_id}", headers=customer._headers(BIRCH.id)) as answer:
            return answer.status == 200

    await wait_for(seen, what="the job to be seen")


async def test_a_repeat_under_another_event_id_is_no_mistake(customer: Customer, books: Pool) -> None:
    """The same wish, written otherwise, is the same job: nothing failed, and one unit is charged."""
    job_id = str(uuid4())
    again = [
        wish(job_id),
        wish(job_id, requirements="  Something creative outdoors for 6 designers, about 45 minutes. "),
    ]
    again.append(wish(job_id, run_at=None, note="a field that nobody reads"))
    for event in (wish(job_id), *again):
        await customer.xadd("key", job_id, "event", event)
    await _seen(customer, job_id)
    assert_three_activities(await customer.ended_job(job_id))
    await customer.gets_three_activities()  # whatever came before it is through the stages
    assert not await books.fetchval("SELECT count(*) FROM failed_events WHERE job_id = $1::text::uuid", job_id)


@pytest.mark.usefixtures("forgery")
@pytest.mark.parametrize("job_id", [*RESERVED, RESERVED[1].upper(), f"urn:uuid:{RESERVED[0]}"])
async def test_a_uuid_that_names_nothing_is_refused_at_every_edge(
    customer: Customer, stack: Stack, books: Pool, job_id: str
) -> None:
    """Stream, HTTP and client name the field; no job comes of it."""
    event = wish(job_id)
    await customer.xadd("key", job_id, "event", event)
    for row in await letters_of(books, event, stages=2):
        assert row["error_type"] == "InvalidEvent"
        assert row["error_message"].startswith("subject: is a UUID that names nothing")
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
        address = f"/api/jobs/{job_id}{path}"
        async with customer.http.request(method, address, headers=customer._headers(BIRCH.id)) as answer:
            document = await answer.json()
            assert (answer.status, document["errors"][0]["field"]) == (422, "job_id"), document
            assert "names nothing" in document["detail"]
    async with JobRequests.connect(stack.settings.broker_url) as requests:
        with pytest.raises(InvalidArgument, match=r"^job_id: is a UUID that names nothing"):
            await requests.cancel(JobId(job_id), organization_id=BIRCH.id)  # type: ignore[arg-type]  # as untyped callers do
