"""A request by each way in becomes three activities; a request that may not be served is refused with its code."""

from uuid import uuid4

import pytest

from infra.local.organizations import BIRCH, CEDAR, DUNE, ELM, Organization
from producers.client import JobRequests
from tests.acceptance.customer import WISH, Customer, assert_three_activities, hand_written


async def test_http(customer: Customer) -> None:
    """A request over HTTP is accepted with 202 and becomes three activities that are read over HTTP."""
    status, accepted = await customer.post()
    assert status == 202
    assert accepted["success"] is True
    assert accepted["status"] == "processing"
    assert_three_activities(await customer.ended_job(accepted["job_id"]))


async def test_python_client(customer: Customer) -> None:
    """A request by the Python client becomes three activities, which it is told of, and reads."""
    stack = customer.stack
    reading = {"api_url": stack.api_url, "token": stack.token(BIRCH.id)}
    async with JobRequests.connect(stack.settings.broker_url, **reading) as requests:  # type: ignore[arg-type] # texts
        job_id = await requests.submit(organization_id=BIRCH.id, team_id=BIRCH.team.id, requirements=WISH)
        kinds = [one.kind async for one in requests.follow(job_id)]
        job = await requests.wait(job_id)
    assert (kinds[0], kinds[-1]) == ("requested", "completed")
    assert_three_activities(job.model_dump(mode="json"))


async def test_plain_xadd(customer: Customer) -> None:
    """An entry written by hand, with nothing but what the README shows, becomes three activities."""
    job_id = str(uuid4())
    await customer.xadd("key", job_id, "event", hand_written(job_id, BIRCH.id, BIRCH.team.id))
    assert_three_activities(await customer.ended_job(job_id))


@pytest.mark.parametrize(
    ("organization", "status"), [(CEDAR, 429), (DUNE, 402), (ELM, 403)], ids=lambda value: getattr(value, "id", value)
)
async def test_refusals(customer: Customer, organization: Organization, status: int) -> None:
    """What may not be served is refused at once over HTTP, and by the quota stage in the stream, with the same code."""
    answered, problem = await customer.post(organization_id=organization.id, team_id=organization.team.id)
    assert (answered, problem["code"]) == (status, organization.refusal)

    job_id = str(uuid4())
    await customer.xadd("key", job_id, "event", hand_written(job_id, organization.id, organization.team.id))
    job = await customer.ended_job(job_id, organization_id=organization.id)
    assert (job["status"], job["error_code"]) == ("failed", organization.refusal)
    assert job["error_message"]
    assert job["activities"] == []
