"""What an organization writes into the stream about another's job changes nothing for that one, and is named."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from infra.local.organizations import ACME, BIRCH
from infra.local.stack import Stack
from infra.verify import verify
from producers.client import JobRequests
from streams.jobs.events import (
    Accepted,
    Cancelled,
    Completed,
    Failed,
    JobAccepted,
    JobCancelled,
    JobCompleted,
    JobEvent,
    JobFailed,
    JobId,
    JobRejected,
    JobStarted,
    Rejected,
    Started,
    fact_id,
)
from streams.jobs.job_ids import job_id_for
from tests.acceptance.customer import Customer, assert_three_activities, hand_written
from tests.conftest import Pool
from tests.waiting import wait_for

CASES = Path(__file__).parent / "hostile_cases"


@dataclass(frozen=True)
class Entry:
    """What somebody writes, and where."""

    topic: str
    event: str
    headers: Mapping[str, str] | None = None

    async def write(self, customer: Customer, job_id: str) -> None:
        """Write it, keyed by the job."""
        headers = [part for name, value in (self.headers or {}).items() for part in (f"h:{name}", value)]
        await customer.xadd("key", job_id, "event", self.event, *headers, topic=self.topic)


def case(name: str) -> Callable[[JobId], Entry]:
    """Return the entry of a file, for another job."""
    text = (CASES / f"{name}.job-requests.json").read_text()

    def about(job_id: JobId) -> Entry:
        event = json.loads(text) | {"subject": str(job_id)}
        if event["id"].startswith("<uuid5("):
            event["id"] = fact_id(job_id, 1, "completed")
        return Entry("job-requests", json.dumps(event))

    return about


def fact(made: type[JobEvent], data: Any, *, topic: str = "job-events") -> Callable[[JobId], Entry]:
    """Return a fact that nobody decided, under the ID that the stages would give it."""

    def about(job_id: JobId) -> Entry:
        kind = str(made.model_fields["type"].default).split(".")[2]
        event = made(id=fact_id(job_id, 1, kind), source="attack", subject=job_id, time=datetime.now(UTC), data=data)
        return Entry(topic, event.encode().decode())

    return about


def poison_letter(job_id: JobId) -> Entry:
    """Return a dead letter as the transport writes it for what kills its workers."""
    accepted = fact(JobAccepted, Accepted(organization_id=ACME.id, team_id=ACME.team.id, requirements="x"))(job_id)
    headers = {
        "dead-letter-topic": "job-accepted",
        "dead-letter-group": "generation",
        "dead-letter-reason": "max_deliveries",
        "dead-letter-deliveries": "6",
    }
    return Entry("dead-letters", accepted.event, headers)


BEFORE = {
    "foreign cancellation": case("06-S4-foreign-cancel-first"),
    "foreign cancellation with a fact's ID": case("06-S7b-foreign-claims-fact-id"),
    "foreign start": fact(JobStarted, Started(organization_id=BIRCH.id, attempt=1)),
}
AFTER = {
    **BEFORE,
    "foreign run_at too far": case("06-S1-foreign-run-at-too-far"),
    "foreign request": case("04-zero-time"),
    "completed": fact(
        JobCompleted, Completed(organization_id=ACME.id, model="m", prompt_tokens=1, completion_tokens=1)
    ),
    "failed": fact(JobFailed, Failed(organization_id=ACME.id, code="timeout", error_message="x")),
    "rejected": fact(JobRejected, Rejected(organization_id=ACME.id, code="quota_exceeded", message="x")),
    "cancelled": fact(JobCancelled, Cancelled(organization_id=ACME.id, reason="x")),
    "foreign failure": fact(JobFailed, Failed(organization_id=BIRCH.id, code="timeout", error_message="x")),
    "poison": poison_letter,
}


@pytest.mark.usefixtures("forgery")
async def test_another_organizations_events_change_nothing(customer: Customer, stack: Stack, books: Pool) -> None:
    """Whatever is written about its job, before its request and after, a job gets its three activities for one unit."""
    jobs = {f"before: {name}": JobId(uuid4()) for name in BEFORE} | {f"after: {name}": JobId(uuid4()) for name in AFTER}
    for name, job_id in jobs.items():
        when, _, attack = name.partition(": ")
        hostile = (BEFORE if when == "before" else AFTER)[attack](job_id)
        asked = Entry("job-requests", hand_written(str(job_id), ACME.id, ACME.team.id))
        for entry in (hostile, asked) if when == "before" else (asked, hostile):
            await entry.write(customer, str(job_id))
    for name, job_id in jobs.items():
        job = await customer.ended_job(job_id, organization_id=ACME.id)
        assert_three_activities({**job, "name": name})

    async def settled() -> bool:
        rows = await books.fetch(
            "SELECT state FROM quota_ledger WHERE job_id = ANY($1) AND organization_id = 'acme'", list(jobs.values())
        )
        return [row["state"] for row in rows] == ["charged"] * len(jobs)

    await wait_for(settled, what="each job to be charged once")
    # A letter names nobody wrongly, and the fact that a completed run has completed is true.
    forged = {name: str(job_id) for name, job_id in jobs.items() if not name.endswith(("poison", " completed"))}
    connection = await asyncpg.connect(stack.settings.database_url)

    async def all_named() -> bool:
        report = await verify(connection, examples=1_000)
        (finding,) = [one for one in report.findings if one.name == "nothing forged"]
        named = {example.split()[0] for example in finding.examples}
        assert [name for name, job_id in forged.items() if job_id not in named] == []
        return True

    try:
        await wait_for(all_named, what="verify to name each job")
    finally:
        await connection.close()


@pytest.mark.usefixtures("forgery")
async def test_nothing_is_generated_without_a_unit_of_quota(customer: Customer, books: Pool) -> None:
    """An accepted event that quota never entered is kept as a failed event, and no call is made for it."""
    job_id = JobId(uuid4())
    wish = Accepted(organization_id=BIRCH.id, team_id=BIRCH.team.id, requirements="for free")
    await fact(JobAccepted, wish, topic="job-accepted")(job_id).write(customer, str(job_id))

    async def kept() -> bool:
        rows = await books.fetch("SELECT error_type FROM failed_events WHERE job_id = $1", job_id)
        return [row["error_type"] for row in rows] == ["ForgedEvent"]

    await wait_for(kept, what="the event to be kept")
    assert not await books.fetchval("SELECT count(*) FROM generation_attempts WHERE job_id = $1", job_id)


@pytest.mark.usefixtures("forgery")
async def test_an_id_made_from_anothers_key_cannot_be_taken(customer: Customer, stack: Stack) -> None:
    """The next POST with that key ends with three activities, and so does the client's with one that is not ASCII."""
    key = f"Aussflug-{uuid4()}-\N{LATIN SMALL LETTER U WITH DIAERESIS}\N{CYRILLIC SMALL LETTER IO}"
    job_id = job_id_for(ACME.id, key)
    for proof in ({}, {"idempotencykey": key}):
        event = hand_written(str(job_id), BIRCH.id, BIRCH.team.id, id=f"taken-{uuid4()}", **proof)
        await customer.xadd("key", str(job_id), "event", event)
    status, accepted = await customer.post(
        organization_id=ACME.id, team_id=ACME.team.id, headers={"Idempotency-Key": key}
    )
    assert (status, accepted["job_id"]) == (202, str(job_id))
    async with JobRequests.connect(stack.broker_address) as client:
        again = await client.submit(
            organization_id=ACME.id, team_id=ACME.team.id, requirements="again", idempotency_key=key
        )
    assert again == job_id
    assert_three_activities(await customer.ended_job(job_id, organization_id=ACME.id))


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"data": {"organization_id": BIRCH.id, "requirements": "Fun"}}, "invalid_event", "data.team_id: "),
        ({"time": "yesterday"}, "invalid_event", "time: "),
        ({"type": "teamfit.job.wished.v1"}, "invalid_event", "type: "),
        ({"source": "a\0b"}, "invalid_event", "source: "),
        (
            {
                "data": {
                    "organization_id": BIRCH.id,
                    "team_id": BIRCH.team.id,
                    "requirements": "x",
                    "run_at": "2190-01-01T00:00:00Z",
                }
            },
            "run_at_too_far",
            "run_at: ",
        ),
    ],
    ids=["no team", "time", "type", "NUL", "run_at"],
)
@pytest.mark.usefixtures("forgery")
async def test_a_malformed_request_says_why_to_its_sender(
    customer: Customer, changes: Mapping[str, Any], code: str, says: str
) -> None:
    """Its job fails with the field that is wrong; a malformed event about a job that is there changes nothing."""
    job_id, other = str(uuid4()), str(uuid4())
    await customer.xadd("key", other, "event", hand_written(other, BIRCH.id, BIRCH.team.id))
    for one in (job_id, other):
        event = hand_written(one, BIRCH.id, BIRCH.team.id, **{"id": str(uuid4()), **changes})
        if code == "invalid_event" or one == job_id:
            await customer.xadd("key", one, "event", event)

    async def told() -> Any:
        async with customer.http.get(f"/api/jobs/{job_id}", headers=customer._headers(BIRCH.id)) as answer:
            assert answer.status == 200
            job = await answer.json()
            assert job["status"] == "failed"
            return job

    job = await wait_for(told, what="the job to have failed")
    assert job["error_code"] == code
    assert job["error_message"].startswith(says)
    assert_three_activities(await customer.ended_job(other))


async def test_a_delayed_job_that_is_withdrawn_keeps_its_record(customer: Customer, books: Pool) -> None:
    """It shows the team that it was for and when it was asked for, though its request was never published."""
    run_at = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    before = datetime.now(UTC) - timedelta(seconds=1)
    status, accepted = await customer.post(run_at=run_at)
    assert status == 202, accepted
    path = f"/api/jobs/{accepted['job_id']}"
    async with customer.http.post(f"{path}/cancel", headers=customer._headers(BIRCH.id)) as answer:
        assert answer.status == 200

    async def archived() -> bool:
        return bool(
            await books.fetchval("SELECT count(*) = 2 FROM job_events WHERE job_id = $1", UUID(accepted["job_id"]))
        )

    await wait_for(archived, what="the request and its end to be archived")
    job = await customer.job(accepted["job_id"])
    assert (job["status"], job["team_id"]) == ("cancelled", BIRCH.team.id)
    asked, ended = datetime.fromisoformat(job["created_at"]), datetime.fromisoformat(job["completed_at"])
    assert before < asked < ended


@pytest.mark.usefixtures("forgery")
async def test_an_end_that_nobody_decided_is_none(customer: Customer, books: Pool) -> None:
    """A job that waits for its time goes on waiting, whatever facts somebody writes in its organization's name."""
    run_at = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    _, accepted = await customer.post(organization_id=ACME.id, team_id=ACME.team.id, run_at=run_at)
    job_id = JobId(UUID(accepted["job_id"]))
    forged = [AFTER[name](job_id) for name in ("completed", "failed", "rejected", "cancelled")]
    for entry in forged:
        await entry.write(customer, accepted["job_id"])

    async def kept() -> bool:
        rows = await books.fetch("SELECT stage, error_type FROM failed_events WHERE job_id = $1", job_id)
        return [row["error_type"] for row in rows] == ["ForgedEvent"] * 2 * len(forged)

    await wait_for(kept, what="the facts to be kept by both of their readers")
    job = await customer.job(accepted["job_id"], organization_id=ACME.id)
    assert (job["status"], job["activities"], job["run_at"] is None) == ("pending", [], False)
    path = f"/api/jobs/{accepted['job_id']}/cancel"
    async with customer.http.post(path, headers=customer._headers(ACME.id)) as answer:
        assert answer.status == 200


async def test_a_run_at_of_any_offset_is_taken(customer: Customer) -> None:
    """A time that is past in its own zone is now."""
    body = json.loads((CASES / "03-run-at-offset-crashes-schedule.json").read_text())
    status, accepted = await customer.post(json.dumps(body), organization_id=ACME.id)
    assert status == 202, accepted
    assert_three_activities(await customer.ended_job(accepted["job_id"], organization_id=ACME.id))
