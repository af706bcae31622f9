"""Bad input is answered or kept with a message that names what is wrong, and the next job completes."""

from collections.abc import Callable
from uuid import UUID, uuid4

import aiohttp
import pytest

from infra.local.organizations import BIRCH
from infra.local.stack import Stack
from tests.acceptance.customer import Customer, hand_written
from tests.conftest import Pool
from tests.waiting import wait_for

_MEGABYTE = "x" * 1024 * 1024


def _malformed(_job_id: str) -> str:
    return '{"specversion": "1.0", '


def _unknown_type(job_id: str) -> str:
    return hand_written(job_id, BIRCH.id, BIRCH.team.id, type="teamfit.job.wished.v1")


def _missing_field(job_id: str) -> str:
    return hand_written(job_id, BIRCH.id, BIRCH.team.id, data={"organization_id": BIRCH.id, "requirements": "Fun"})


def _megabyte(job_id: str) -> str:
    data = {"organization_id": BIRCH.id, "team_id": BIRCH.team.id, "requirements": _MEGABYTE}
    return hand_written(job_id, BIRCH.id, BIRCH.team.id, data=data)


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (_malformed, "JSON"),
        (_unknown_type, "type"),
        (_missing_field, "data.team_id"),
        (_megabyte, "data.requirements"),
    ],
)
async def test_an_entry_that_cannot_be_read_is_kept(
    customer: Customer, books: Pool, write: Callable[[str], str], named: str
) -> None:
    """An entry that is no valid event is in `failed_events`, byte for byte, with a message that names the field."""
    event = write(str(uuid4()))
    await customer.xadd("key", "by-hand", "event", event)

    async def kept() -> list[str]:
        rows = await books.fetch("SELECT error_message FROM failed_events WHERE event = $1", event.encode())
        return [row["error_message"] for row in rows]

    messages = await wait_for(kept, what="the entry to be kept")
    assert all(named in message for message in messages), messages
    assert all(_MEGABYTE not in message for message in messages)
    await customer.gets_three_activities()


async def test_an_entry_without_an_event_is_kept(customer: Customer, books: Pool) -> None:
    """An entry whose field has another name is kept, and the message says which field is missing."""
    key = f"by-hand-{uuid4()}"
    await customer.xadd("key", key, "payload", "{}")

    async def kept() -> str | None:
        message: str | None = await books.fetchval(
            "SELECT error_message FROM failed_events WHERE key = $1", key.encode()
        )
        return message

    assert "`event`" in (await wait_for(kept, what="the entry to be kept") or "")
    await customer.gets_three_activities()


async def test_a_request_for_an_unknown_team_fails_with_a_code(customer: Customer) -> None:
    """A team that is not there is a refusal, by stream and over HTTP alike."""
    job_id = str(uuid4())
    await customer.xadd("key", job_id, "event", hand_written(job_id, BIRCH.id, "no-such-team"))
    job = await customer.ended_job(job_id)
    assert (job["status"], job["error_code"]) == ("failed", "team_not_found")
    assert "no-such-team" in job["error_message"]

    status, problem = await customer.post(team_id="no-such-team")
    assert (status, problem["code"]) == (404, "team_not_found")
    await customer.gets_three_activities()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("this is no JSON", 400, "invalid_json"),
        ('{"organization_id": "birch", "requirements": "Fun"}', 422, "invalid_request"),
        (
            f'{{"organization_id": "birch", "team_id": "birch-design", "requirements": "{_MEGABYTE}"}}',
            413,
            "body_too_large",
        ),
    ],
    ids=["no JSON", "missing field", "a megabyte"],
)
async def test_a_body_that_cannot_be_read_is_a_problem_document(
    customer: Customer, body: str, status: int, code: str
) -> None:
    """A request that cannot be read gets a problem document with a stable code, and changes nothing."""
    answered, problem = await customer.post(body)
    assert (answered, problem["status"], problem["code"]) == (status, status, code)
    assert problem["detail"]
    await customer.gets_three_activities()


async def test_a_job_whose_answers_are_never_right_fails_and_can_be_found(
    stack: Stack, customer: Customer, books: Pool
) -> None:
    """After its last attempt the job is failed with a reason, its event is kept for replay, the next job completes."""
    async with aiohttp.ClientSession() as llm:
        control = f"{stack.settings.openai_base_url}".removesuffix("/v1") + "/control"
        async with llm.put(control, json={"mode": "two_activities", "count": stack.settings.max_attempts}) as told:
            assert told.status == 200, await told.text()
    status, accepted = await customer.post()
    assert status == 202, accepted
    job = await customer.ended_job(accepted["job_id"])
    assert (job["status"], job["error_code"]) == ("failed", "llm_invalid_output")

    async def kept() -> str | None:
        rows = await books.fetch("SELECT stage FROM failed_events WHERE job_id = $1", UUID(accepted["job_id"]))
        return rows[0]["stage"] if rows else None

    assert await wait_for(kept, what="the dead letter to be kept") == "generation"
    await customer.gets_three_activities()
