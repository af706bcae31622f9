"""A run that waits before its call says for what: room in the endpoint's limits, or an endpoint that takes no calls."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from infra.clock import SystemClock
from infra.errors import DependencyDown, Postponed
from infra.operations.jobs import JobLife, life_of
from infra.postgres import Database
from streams.delivery.deliveries import Record
from streams.jobs.dispatch import Dispatcher, GivenBack, enter
from streams.jobs.events import JobAccepted
from streams.jobs.topics import JOB_ACCEPTED, record
from streams.jobs.waits import WaitingFor
from tests.integration.generation.conftest import Endpoint, Published, Starter, accepted, entered
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("team")


async def released(database: Database, count: int) -> list[JobAccepted]:
    """Admit so many runs and release them."""
    events = [accepted() for _ in range(count)]
    for event in events:
        await entered(database, event)
    async with database.transaction() as connection:
        await enter(connection, [record(JOB_ACCEPTED, event) for event in events])
    await Dispatcher(database, Published(), window=100).release(sweep=True)
    return events


async def waits_for(database: Database, event: JobAccepted) -> WaitingFor | None:
    """Return what an operator reads."""
    return (await life_of(database, event.job_id)).waiting_for


async def gate_of(database: Database, event: JobAccepted) -> str | None:
    """Return the gate alone."""
    waiting = await waits_for(database, event)
    return waiting.gate if waiting else None


async def assert_adds_up(database: Database, event: JobAccepted) -> JobLife:
    """Check that the steps of a run that has ended are its whole time."""
    life = await life_of(database, event.job_id)
    async with database.transaction() as connection:
        whole = await connection.fetchval(
            "SELECT ended.decided_at - entry.decided_at FROM job_outcomes AS ended"
            " JOIN quota_ledger AS entry USING (job_id, run) WHERE job_id = $1",
            event.job_id,
        )
    assert sum(one.seconds for one in life.spent) == pytest.approx(whole.total_seconds(), rel=0.01)
    return life


async def test_a_run_that_waits_for_room_in_the_limits_says_so(start_stage: Starter, postgres: Database) -> None:
    """While it waits, the gate is `pacing`; afterwards that time is told apart from the worker's and the call's."""
    stage = await start_stage(llm_requests_per_minute=40)
    events = await released(postgres, 3)
    handled = [asyncio.create_task(stage.handle(event)) for event in events]
    await wait_for(lambda: gate_is(postgres, events[-1], "pacing"), what="the last run to say that it waits for room")
    await asyncio.gather(*handled)
    life = await assert_adds_up(postgres, events[-1])
    spent = {one.step: one.seconds for one in life.spent}
    assert spent["pacing"] > 0
    assert life.waiting_for is None


async def gate_is(database: Database, event: JobAccepted, gate: str) -> bool:
    """Return whether a run waits at this gate."""
    return await gate_of(database, event) == gate


async def test_a_run_that_waits_for_room_outside_the_worker_says_so(start_stage: Starter, postgres: Database) -> None:
    """It holds no slot meanwhile; when it is due it waits for its turn, is begun, and all its time adds up."""
    stage = await start_stage(llm_requests_per_minute=1, stage_timeout_s=1.0)
    (event,) = await released(postgres, 1)
    with pytest.raises(Postponed) as raised:
        await stage.handle(event)
    back = GivenBack(postgres, SystemClock(), Dispatcher(postgres, Published(), window=100))
    retry = Record(JOB_ACCEPTED, event.key, event.encode())
    await back.schedule(retry, timedelta(minutes=1), reason=str(raised.value))
    await wait_for(lambda: gate_is(postgres, event, "pacing"), what="the run to be parked")
    parked = datetime.now(UTC)
    waiting = await waits_for(postgres, event)
    assert waiting is not None
    assert waiting.until is not None
    assert waiting.until > datetime.now(UTC) + timedelta(seconds=30)
    quick = await start_stage()
    at_least = datetime.now(UTC) - parked
    async with postgres.transaction() as connection:
        await connection.execute("DELETE FROM scheduled_events")
        await connection.execute("UPDATE dispatch_runs SET due = true, entered_at = clock_timestamp()")
    await Dispatcher(postgres, Published(), window=100).release(sweep=True)
    assert await gate_of(postgres, event) == "worker"
    await quick.handle(event)
    life = await assert_adds_up(postgres, event)
    spent = {one.step: one.seconds for one in life.spent}
    assert spent["pacing"] >= at_least.total_seconds()


@pytest.mark.parametrize("status", ["429", "503"])
async def test_a_run_whose_endpoint_takes_no_calls_says_so(
    start_stage: Starter, postgres: Database, endpoint: Endpoint, status: str
) -> None:
    """Its first call is refused, it waits, and the second completes it: each has its time."""
    stage = await start_stage()
    (event,) = await released(postgres, 1)
    await endpoint.tell(status, count=1, retry_after=2)
    with pytest.raises(DependencyDown):
        await stage.handle(event)
    waiting = await waits_for(postgres, event)
    assert waiting is not None
    assert waiting.gate == "endpoint"
    assert waiting.until is not None
    left = waiting.until - datetime.now(UTC)

    async def is_completed() -> bool:
        try:
            return bool(await stage.handle(event))
        except DependencyDown:
            return False

    await wait_for(is_completed, what="the gate to open")
    life = await assert_adds_up(postgres, event)
    spent = {one.step: one.seconds for one in life.spent}
    assert spent["endpoint"] > left.total_seconds() - 0.1  # two clocks
    assert life.waiting_for is None


async def test_one_of_two_endpoints_that_is_away_is_no_gate(postgres: Database) -> None:
    """While another takes calls, a run waits for a worker; when both are away, for the endpoint."""
    (event,) = await released(postgres, 1)
    async with postgres.transaction() as connection:
        for name in ("https://a (one)", "https://b"):
            await connection.execute(
                "INSERT INTO llm_hours (endpoint, model, hour, calls, failed, refused, seconds, prompt_tokens,"
                " completion_tokens) VALUES ($1, 'm', date_trunc('hour', now()), 1, 0, 0, 1, 1, 1)",
                name,
            )
        await connection.execute(
            "INSERT INTO llm_holds (endpoint, model, credential, blame, code, sentence, next_probe_at)"
            " VALUES ('https://a', 'm', 'k', 'endpoint', 'c', 's', now())"
        )
    assert await gate_of(postgres, event) == "worker"
    async with postgres.transaction() as connection:
        await connection.execute("INSERT INTO llm_gate VALUES ('https://b', now() + interval '1 minute', '429')")
    assert await gate_of(postgres, event) == "endpoint"
