"""Jobs that are withdrawn while generation has them in hand."""

import asyncio

import pytest

from infra.clock import SystemClock
from infra.errors import Permanent
from streams.jobs.cancellations import cancel_run
from streams.jobs.events import JobAccepted
from tests.integration.generation.conftest import Endpoint, StageUnderTest, accepted
from tests.waiting import wait_for


async def cancel(stage: StageUnderTest, event: JobAccepted) -> None:
    """Withdraw the job, as the API does."""
    async with stage.database.transaction() as connection:
        await cancel_run(
            connection,
            job_id=event.job_id,
            run=event.run,
            organization_id=event.data.organization_id,
            reason="off",
            at=SystemClock().now(),
        )


async def test_a_failure_after_the_cancellation_is_no_failure_of_the_job(
    stage: StageUnderTest, endpoint: Endpoint
) -> None:
    """The stage that gives the run up finds it cancelled, and publishes no JobFailed."""
    await endpoint.tell("refusal", latency=0.5)
    event = accepted()
    running = asyncio.create_task(stage.handle(event))
    await wait_for(endpoint.busy, what="the call to be under way")
    await cancel(stage, event)
    with pytest.raises(Permanent) as caught:
        await running
    assert await stage.give_up(event, caught.value) == ()
