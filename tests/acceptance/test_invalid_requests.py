"""An entry that is no valid request makes no job: its sender is told why, and it stands in nobody's way."""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from infra.local.organizations import ACME, BIRCH
from streams.jobs.events import JobId
from streams.jobs.job_ids import job_id_for
from tests.acceptance.customer import Customer, assert_three_activities, hand_written
from tests.conftest import Pool
from tests.waiting import wait_for

Fields: TypeAlias = Mapping[str, str]
Spoil: TypeAlias = Callable[[dict[str, Any]], object]


def structured(spoil: Spoil) -> Callable[[str], Fields]:
    """Return the fields of an entry whose event somebody spoiled, in place or by returning another one."""

    def fields(job_id: str) -> Fields:
        event = json.loads(hand_written(job_id, BIRCH.id, BIRCH.team.id))
        spoilt = spoil(event) or event
        return {"key": job_id, "event": spoilt if isinstance(spoilt, str) else json.dumps(spoilt)}

    return fields


def binary(data: Callable[[str], str], **headers: str) -> Callable[[str], Fields]:
    """Return the fields of an entry in binary mode with this data; it has no key."""

    def fields(job_id: str) -> Fields:
        event = json.loads(hand_written(job_id, BIRCH.id, BIRCH.team.id))
        whole = json.dumps(event.pop("data"))
        return {f"ce_{name}": text for name, text in (event | headers).items()} | {"data": data(whole)}

    return fields


def in_base64(mend: Callable[[str], object], **more: object) -> Spoil:
    """Return what puts the data into Base64 and spoils that."""

    def spoil(event: dict[str, Any]) -> dict[str, Any]:
        # Longer by a space or two, so that its Base64 ends in padding; a plus and a slash are in it.
        data = json.dumps({**event.pop("data"), "note": "???>>>~~~" * 3}).encode()
        encoded = base64.b64encode(data + b" " * (2 - len(data) % 3)).decode()
        assert {"+", "/", "="} <= set(encoded)
        return event | {"data_base64": mend(encoded)} | more

    return spoil


CASES: Final[dict[str, tuple[Callable[[str], Fields], str]]] = {
    "data is JSON in a text": (structured(lambda event: event | {"data": json.dumps(event["data"])}), "data: "),
    "data is a list": (structured(lambda event: event | {"data": [event["data"]]}), "data: "),
    "data and data_base64": (structured(in_base64(str, data={"organization_id": BIRCH.id})), "data_base64: "),
    "Base64 with other letters": (structured(in_base64(lambda text: f"{text[:-8]}!{text[-8:]}")), "data_base64: "),
    "Base64 with a letter too many": (structured(in_base64(lambda text: text.rstrip("=") + "A" * 3)), "data_base64: "),
    "Base64 of half a document": (structured(in_base64(lambda text: text[:-8])), "data_base64: "),
    "the event is in a text": (structured(lambda event: json.dumps(json.dumps(event))), "event: "),
    "a batch of one": (structured(lambda event: json.dumps([event])), "event: "),
    "cut off": (structured(lambda event: json.dumps(event)[:-2]), "event: "),
    "cut off, in a text": (structured(lambda event: json.dumps(json.dumps(event))[:-4]), "event: "),
    "a comma too many": (structured(lambda event: json.dumps(event)[:-1] + ",}"), "event: "),
    "binary mode, data cut off": (binary(lambda data: data[:-1]), "data: "),
    "binary mode, data in a text": (binary(json.dumps), "data: "),
    "binary mode, a wrong time": (binary(str, time="today"), "time: "),
    "a later run": (structured(lambda event: event | {"run": 2}), "run: "),
    "no run": (structured(lambda event: event | {"run": 0}), "run: "),
    "an accepted event": (structured(lambda event: event | {"type": "teamfit.job.accepted.v1"}), "type: "),
    "another type": (structured(lambda event: event | {"type": "teamfit.job.wished.v1"}), "type: "),
    "no type": (structured(lambda event: event.pop("type") and event), "type: "),
    "no team": (structured(lambda event: event["data"].pop("team_id") and event), "data.team_id: "),
    "a wrong time": (structured(lambda event: event | {"time": "yesterday"}), "time: "),
    "no subject": (structured(lambda event: event.pop("subject") and event), "subject: "),
}


@pytest.mark.usefixtures("forgery")
@pytest.mark.parametrize("name", CASES)
async def test_its_sender_is_told_and_a_corrected_request_starts_the_job(customer: Customer, name: str) -> None:
    """The status is `failed` with the field that is wrong; the same UUID, sent rightly, is a job like any other."""
    fields, says = CASES[name]
    job_id = str(uuid4())
    await customer.xadd(*(part for pair in fields(job_id).items() for part in pair))
    job = await told(customer, job_id)
    assert (job["error_code"], job["organization_id"], job["activities"]) == ("invalid_event", BIRCH.id, [])
    assert job["error_message"].startswith(says), job["error_message"]
    for path in (f"/api/jobs/{job_id}", f"/api/jobs/{job_id}/events"):
        async with customer.http.get(path, headers=customer._headers(ACME.id)) as answer:
            assert answer.status == 404
    async with customer.http.get(f"/api/jobs/{job_id}/events", headers=customer._headers(BIRCH.id)) as answer:
        assert answer.status == 204
    async with customer.http.post(f"/api/jobs/{job_id}/cancel", headers=customer._headers(BIRCH.id)) as answer:
        assert (answer.status, (await answer.json())["code"]) == (409, "job_failed")
    await customer.xadd("key", job_id, "event", hand_written(job_id, BIRCH.id, BIRCH.team.id))
    assert_three_activities(await ended_well(customer, job_id, BIRCH.id))


@pytest.mark.usefixtures("forgery")
async def test_it_takes_a_job_id_from_nobody(customer: Customer, books: Pool) -> None:
    """Whatever one organization writes about a UUID first, another's valid request for it is served."""
    jobs = {name: str(uuid4()) for name in CASES}
    for name, job_id in jobs.items():
        await customer.xadd(*(part for pair in CASES[name][0](job_id).items() for part in pair))
    for job_id in jobs.values():
        await told(customer, job_id)
    assert not await books.fetchval("SELECT count(*) FROM job_owners WHERE job_id = ANY($1)", uuids(jobs.values()))
    for job_id in jobs.values():
        await customer.xadd("key", job_id, "event", hand_written(job_id, ACME.id, ACME.team.id))
    for job_id in jobs.values():
        assert_three_activities(await ended_well(customer, job_id, ACME.id))
        async with customer.http.get(f"/api/jobs/{job_id}", headers=customer._headers(BIRCH.id)) as answer:
            assert answer.status == 404


@pytest.mark.usefixtures("forgery")
async def test_a_good_request_wins_wherever_bad_ones_stand(customer: Customer, books: Pool) -> None:
    """Right before it, right behind it, in one packet with it: each job completes once, for one unit."""
    jobs = [str(uuid4()) for _ in range(2 * len(CASES))]
    async with Redis.from_url(customer.stack.broker_address) as redis, redis.pipeline(transaction=False) as pipeline:
        for turn, job_id in enumerate(jobs):
            fields, _ = list(CASES.values())[turn % len(CASES)]
            bad = [part for pair in fields(job_id).items() for part in pair]
            good = ["key", job_id, "event", hand_written(job_id, BIRCH.id, BIRCH.team.id)]
            for entry in (bad, good, bad) if turn % 2 else (good, bad, bad):
                pipeline.execute_command("XADD", "job-requests", "*", *entry)
        await pipeline.execute()
    for job_id in jobs:
        assert_three_activities(await ended_well(customer, job_id, BIRCH.id))

    async def settled() -> bool:
        rows = await books.fetch("SELECT state FROM quota_ledger WHERE job_id = ANY($1)", uuids(jobs))
        return [row["state"] for row in rows] == ["charged"] * len(jobs)

    await wait_for(settled, what="each job to be charged once")


@pytest.mark.usefixtures("forgery")
async def test_an_id_made_from_a_key_is_told_of_and_stays_its_owners(customer: Customer) -> None:
    """A request that does not name the key says so in the job's status, and the POST with the key is served."""
    key = f"offsite-{uuid4()}"
    job_id = str(job_id_for(BIRCH.id, key))
    await customer.xadd("key", job_id, "event", hand_written(job_id, BIRCH.id, BIRCH.team.id))
    assert "idempotencykey" in (await told(customer, job_id))["error_message"]
    status, accepted = await customer.post(headers={"Idempotency-Key": key})
    assert (status, accepted["job_id"]) == (202, job_id)
    assert_three_activities(await ended_well(customer, job_id, BIRCH.id))


async def told(customer: Customer, job_id: str) -> Any:
    """Read the job once its sender is told that it failed."""

    async def failed() -> Any:
        job = await customer.job(job_id)
        assert job["status"] == "failed", job
        return job

    return await wait_for(failed, what=f"the sender of {job_id} to be told")


async def ended_well(customer: Customer, job_id: str, organization_id: str) -> Any:
    """Read the job once it is completed, whatever was told of it before."""

    async def completed() -> Any:
        job = await customer.job(job_id, organization_id=organization_id)
        assert job["status"] == "completed", job
        return job

    return await wait_for(completed, deadline_s=30, what=f"job {job_id} to complete")


def uuids(job_ids: Any) -> list[JobId]:
    """Return the IDs as UUIDs."""
    return [JobId(UUID(job_id)) for job_id in job_ids]
