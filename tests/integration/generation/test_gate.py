"""The gate before the LLM endpoint: while it is closed no worker of the fleet calls, and nobody pays for the wait."""

import asyncio
import time
from datetime import timedelta
from uuid import uuid4

import pytest

from consumers.generation.gate import open_gates
from infra.errors import DependencyDown
from streams.delivery.deliveries import Delivery
from tests.integration.generation.conftest import Endpoint, Pool, StageUnderTest, Starter, accepted, eventually
from tests.waiting import wait_for


def deliveries(number: int) -> list[Delivery]:
    """Return deliveries of so many accepted jobs."""
    return [Delivery("job-accepted", event.key, event.encode()) for event in (accepted() for _ in range(number))]


async def closed_for(database: Pool) -> timedelta:
    """Return how long the gate is closed yet."""
    wait = await database.fetchval("SELECT max(closed_until) - clock_timestamp() FROM llm_gate")
    return wait or timedelta()


async def calls_on_record(database: Pool) -> int:
    """Return how many calls the database knows of, for jobs and for none."""
    attempts = await database.fetchval("SELECT count(*) FROM generation_attempts")
    return int(attempts + await database.fetchval("SELECT coalesce(sum(calls), 0) FROM llm_probes"))


async def received(endpoint: Endpoint) -> int:
    """Return how many calls the provider has counted."""
    return int((await endpoint.calls())["received"])


async def test_nobody_calls_before_the_time_that_the_endpoint_named(
    stage: StageUnderTest, start_stage: Starter, endpoint: Endpoint, database: Pool
) -> None:
    """Two workers with 300 deliveries in hand are told to come back in 2 s, and until then neither calls.

    Then every job completes, at the first of its stage's tries and with nothing among the dead letters.
    """
    workers = [stage, await start_stage()]
    stages = [worker.wrapped() for worker in workers]
    await endpoint.tell("429", retry_after=2)
    work = [asyncio.create_task(one.process(delivery)) for one in stages for delivery in deliveries(150)]

    async def at_rest() -> bool:
        under_way = await database.fetchval("SELECT count(*) FROM generation_attempts WHERE state = 'started'")
        return all(one.held for one in stages) and not under_way and bool(await closed_for(database))

    await wait_for(at_rest, what="both workers to stand still before the gate")
    before = await received(endpoint)
    assert before > 0
    await endpoint.tell("ok")
    seen = 0
    while True:
        calls = await received(endpoint)
        if await closed_for(database) <= timedelta():
            break
        assert calls == before
        seen += 1
        await asyncio.sleep(0.02)
    assert seen > 10

    await asyncio.gather(*work)
    assert await database.fetchval("SELECT count(*) FROM job_outcomes WHERE outcome = 'completed'") == 300
    assert await database.fetchval("SELECT count(*) FROM scheduled_events") == 0
    assert {record.topic for worker in workers for record in worker.published.records} == {"job-events"}
    assert await database.fetchval("SELECT count(*) FROM generation_attempts") == await received(endpoint)


async def test_a_worker_that_was_not_told_finds_the_gate_closed(
    stage: StageUnderTest, start_stage: Starter, endpoint: Endpoint, database: Pool
) -> None:
    """What one worker hears binds the next begin of another, which leaves no trace of it."""
    other = await start_stage()
    await endpoint.tell("429", retry_after=30, count=1)
    with pytest.raises(DependencyDown):
        await stage.handle(accepted())
    with pytest.raises(DependencyDown, match="takes no calls for") as raised:
        await other.handle(accepted())
    assert raised.value.dependency == "llm"
    assert raised.value.retry_after is not None
    assert timedelta(seconds=25) < raised.value.retry_after < timedelta(seconds=35)
    assert await received(endpoint) == await database.fetchval("SELECT count(*) FROM generation_attempts") == 1
    assert not other.published.records


async def test_an_attempt_that_was_begun_before_the_gate_closed_does_not_call(
    stage: StageUnderTest, endpoint: Endpoint, database: Pool
) -> None:
    """Between begin and call a job says that it started; if the gate closes meanwhile, the call is not made."""
    await endpoint.tell("429", retry_after=30, count=1)

    async def another_is_told() -> None:
        with pytest.raises(DependencyDown):
            await stage.handle(accepted())

    stage.published.meanwhile = another_is_told
    with pytest.raises(DependencyDown, match="takes no calls for"):
        await stage.handle(accepted())
    assert await received(endpoint) == await database.fetchval("SELECT count(*) FROM generation_attempts") == 1


async def test_an_overloaded_endpoint_closes_the_gate_too(
    stage: StageUnderTest, endpoint: Endpoint, database: Pool
) -> None:
    """A 503 with `Retry-After` is such a word as a 429."""
    await endpoint.tell("503", retry_after=30)
    with pytest.raises(DependencyDown):
        await stage.handle(accepted())
    assert await database.fetchval("SELECT reason FROM llm_gate") == "llm_server_error"


async def test_an_answer_that_uses_up_the_limit_counts_and_closes_the_gate(
    stage: StageUnderTest, start_stage: Starter, endpoint: Endpoint
) -> None:
    """The job is completed; the next one waits for the limit's reset, in each worker."""
    other = await start_stage()
    endpoint.headers.update({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"})
    assert await stage.handle(accepted())
    for worker in (stage, other):
        with pytest.raises(DependencyDown, match=r"takes no calls for 3\d\d"):
            await worker.handle(accepted())
    assert await received(endpoint) == 1


async def test_a_gate_that_an_operator_opens_lets_waiting_workers_through(
    stage: StageUnderTest, endpoint: Endpoint
) -> None:
    """A worker that was told to wait for an hour asks again, finds the gate open, and calls; nobody restarts it."""
    await endpoint.tell("429", retry_after=3_600, count=1)
    for _ in range(2):
        with pytest.raises(DependencyDown) as raised:
            await stage.handle(accepted())
        assert raised.value.retry_after is not None
        assert timedelta(seconds=30) <= raised.value.retry_after <= timedelta(seconds=35)
    async with stage.database.transaction() as connection:
        assert await open_gates(connection, [endpoint.base_url]) == [endpoint.base_url]
    with pytest.raises(DependencyDown):
        await stage.handle(accepted())
    stage.line.gate.clock = lambda: time.monotonic() + 30
    assert await stage.handle(accepted())
    assert await received(endpoint) == 2


async def test_the_gate_only_moves_forward(
    stage: StageUnderTest, start_stage: Starter, endpoint: Endpoint, database: Pool
) -> None:
    """A shorter wait that is named later does not open it early."""
    other = await start_stage()
    await endpoint.tell("ok", latency=0.5)
    endpoint.headers.update({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"})
    late = asyncio.create_task(other.handle(accepted()))
    await wait_for(endpoint.busy, what="the other worker's call")
    await database.execute(
        "INSERT INTO llm_gate SELECT $1, clock_timestamp() + interval '1 hour', 'longer'", endpoint.base_url
    )
    assert await late
    assert await closed_for(database) > timedelta(minutes=59)
    assert await database.fetchval("SELECT reason FROM llm_gate") == "longer"


async def test_a_gate_belongs_to_its_endpoint(stage: StageUnderTest, database: Pool) -> None:
    """Workers of another endpoint in the same database go on."""
    await database.execute("INSERT INTO llm_gate SELECT 'https://other/v1', clock_timestamp() + interval '1 hour', 'x'")
    assert await stage.handle(accepted())


async def test_a_gate_that_a_wrong_clock_closed_is_open(
    stage: StageUnderTest, endpoint: Endpoint, database: Pool
) -> None:
    """Postgres's clock was an hour ahead when the gate was closed, and was set back: nobody waits for an hour.

    It can be closed anew by the right clock. It used to keep the whole fleet from calling until the wrong time came.
    """
    await database.execute(
        "INSERT INTO llm_gate (endpoint, closed_until, closed_at, reason) VALUES "
        "($1, clock_timestamp() + interval '1 hour 2 seconds', clock_timestamp() + interval '1 hour', 'ahead')",
        endpoint.base_url,
    )
    assert await stage.handle(accepted())
    await endpoint.tell("429", count=1, retry_after=30)
    with pytest.raises(DependencyDown):
        await stage.handle(accepted())
    assert timedelta() < await closed_for(database) <= timedelta(seconds=30)


async def test_a_rate_limit_that_names_no_time_holds_until_a_probe_is_answered(
    stage: StageUnderTest, endpoint: Endpoint, database: Pool
) -> None:
    """No attempt is spent, and no gate is closed for a time that nobody has named."""
    await endpoint.tell("429", count=1)
    with pytest.raises(DependencyDown, match="rate limit"):
        await stage.handle(accepted())
    assert await database.fetchval("SELECT count(*) FROM llm_gate") == 0
    assert await database.fetchval("SELECT blame FROM llm_holds") == "limit"
    assert await eventually(stage, accepted())


@pytest.mark.parametrize("mode", ["401", "ok"])
async def test_an_outage_is_probed_and_burns_nothing(
    stage: StageUnderTest, endpoint: Endpoint, database: Pool, mode: str
) -> None:
    """A wrong key, or a broker that is away, does not become a thousand failures.

    The stage probes; what the provider saw is on record, and nothing else. Every job completes afterwards.
    """
    around = stage.wrapped()
    await endpoint.tell(mode)
    if mode == "ok":
        stage.published.error = DependencyDown("broker", "away")
    work = [asyncio.create_task(around.process(delivery)) for delivery in deliveries(100)]

    await wait_for(lambda: around.standstill._probes >= 3, what="three probes")
    assert await received(endpoint) <= await calls_on_record(database)
    await endpoint.tell("ok")
    stage.published.error = None
    await asyncio.gather(*work)
    assert await database.fetchval("SELECT count(*) FROM job_outcomes WHERE outcome = 'completed'") == 100
    assert {record.topic for record in stage.published.records} == {"job-events"}
    assert await calls_on_record(database) == await received(endpoint)


async def test_secrets_in_the_address_do_not_name_the_gate(
    start_stage: Starter, endpoint: Endpoint, database: Pool, team: str
) -> None:
    """The table is read by people."""
    secret = uuid4().hex
    stage = await start_stage(openai_base_url=endpoint.base_url.replace("//", f"//user:{secret}@") + f"?key={secret}")
    assert stage.line.gate.endpoint == endpoint.base_url


async def test_a_probe_that_is_cut_off_is_on_record(stage: StageUnderTest, endpoint: Endpoint, database: Pool) -> None:
    """A worker that ends, or whose try's time is over, while it asks for the fleet leaves no call without a record."""
    assert await stage.handle(accepted())  # from now on it is known how the endpoint is asked
    await endpoint.tell("500", latency=1.0)
    work = asyncio.create_task(stage.handle(accepted()))

    async def probing() -> bool:
        return await received(endpoint) == 3

    await wait_for(probing, what="the probe after the job's own call")
    work.cancel()
    await asyncio.wait([work])
    assert await calls_on_record(database) == 3
    assert await database.fetchval("SELECT sum(maybe_billed_calls) FROM llm_probes") == 1
