"""One accepted job as several entries of the broker: one call, whoever gets them, and no slot is spent on waiting."""

import asyncio
import random

import pytest
from redis.asyncio import Redis

from infra.clock import SystemClock
from infra.errors import Postponed
from streams.delivery.deliveries import ATTEMPT, Delivery, Record
from streams.delivery.scheduled import take_due
from streams.delivery.seal import Seal
from streams.jobs.dispatch import enter
from streams.jobs.events import JobAccepted, parse_event
from streams.jobs.topics import JOB_ACCEPTED, record
from tests.integration.generation.conftest import (
    ENTRY,
    Endpoint,
    Pool,
    StageUnderTest,
    Starter,
    WorkerStarter,
    accepted,
    die_in_a_call,
    entered,
    write,
)
from tests.stream_entries import entries_of
from tests.waiting import wait_for

ANOTHER = "job-accepted/0/2-0"


async def calls(endpoint: Endpoint) -> int:
    """Return how many calls the endpoint has received."""
    return int((await endpoint.calls())["received"])


@pytest.mark.parametrize("same_worker", [True, False])
async def test_a_duplicate_during_the_call_does_not_pay(
    stage: StageUnderTest, start_stage: Starter, endpoint: Endpoint, same_worker: bool
) -> None:
    """Whoever gets it, a second entry of the run is put off at once; when it comes again it repeats the fact."""
    await endpoint.tell("slow")
    event, other = accepted(), stage if same_worker else await start_stage()
    first = asyncio.create_task(stage.handle(event))
    await wait_for(endpoint.busy, what="the call")
    with pytest.raises(Postponed):
        await other.handle(event, ANOTHER)
    await endpoint.tell("ok")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    # The first entry's worker is gone: the broker hands that entry over again, and it need not wait.
    told = await other.handle(event)
    assert [one.value for one in await other.handle(event, ANOTHER)] == [one.value for one in told]
    assert await calls(endpoint) == 2


async def test_an_attempt_whose_time_a_wrong_clock_named_is_taken_over(
    stage: StageUnderTest, endpoint: Endpoint, database: Pool
) -> None:
    """Postgres's clock was an hour ahead when a worker began and died, and was set back: nobody waits for an hour."""
    await endpoint.tell("slow")
    event = accepted()
    first = asyncio.create_task(stage.handle(event))
    await wait_for(endpoint.busy, what="the call")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await endpoint.tell("ok")
    await database.execute("UPDATE generation_attempts SET deadline = deadline + interval '1 hour'")
    assert await stage.handle(event, ANOTHER)


async def test_many_jobs_as_many_entries_are_paid_once(
    stage: StageUnderTest, start_stage: Starter, endpoint: Endpoint, database: Pool
) -> None:
    """Two workers get four entries of each job in any order; those put off come again when the attempt has ended."""
    await endpoint.tell("ok", latency=0.2)
    workers, events = (stage, await start_stage()), [accepted() for _ in range(50)]
    copies = [(event, f"job-accepted/0/{number}-0") for number, event in enumerate(events * 4)]
    random.shuffle(copies)
    ended = {event.job_id: asyncio.Event() for event in events}

    async def deliver(worker: StageUnderTest, event: JobAccepted, entry: str) -> list[Record]:
        while True:
            try:
                told = list(await worker.handle(event, entry))
            except Postponed:
                await ended[event.job_id].wait()
            else:
                ended[event.job_id].set()
                return told

    told = await asyncio.gather(*(deliver(workers[number % 2], *copy) for number, copy in enumerate(copies)))
    assert len({one.value for (one,) in told}) == 50
    assert await calls(endpoint) == 50
    states = await database.fetch("SELECT state, count(*) AS attempts FROM generation_attempts GROUP BY state")
    assert [tuple(row) for row in states] == [("saved", 50)]


@pytest.mark.parametrize("deadline", ["now()", "NULL"])
async def test_an_attempt_whose_time_is_over_is_anybodys(
    stage: StageUnderTest, start_stage: Starter, endpoint: Endpoint, database: Pool, deadline: str
) -> None:
    """If the first entry is lost with its worker, another takes the run in the end; so does one of an older release."""
    event = accepted()
    await die_in_a_call(start_stage, endpoint, event)
    with pytest.raises(Postponed) as raised:
        await stage.handle(event, ANOTHER)
    assert raised.value.delay.total_seconds() > 100
    await database.execute(f"UPDATE generation_attempts SET deadline = {deadline}")
    assert await stage.handle(event, ANOTHER)
    rows = await database.fetch("SELECT state, maybe_billed FROM generation_attempts ORDER BY attempt")
    assert [tuple(row) for row in rows] == [("abandoned", True), ("saved", False)]


async def test_a_further_run_takes_what_is_under_way_from_the_one_before(
    stage: StageUnderTest, start_stage: Starter, endpoint: Endpoint, database: Pool
) -> None:
    """A replay has ended a run in the middle of its call: the late answer changes nothing, and may have been billed."""
    event = accepted()
    await endpoint.tell("ok", latency=2.0)
    calling = asyncio.create_task(stage.handle(event))
    await wait_for(endpoint.busy, what="the call")
    await database.execute("INSERT INTO job_outcomes (job_id, run, outcome) VALUES ($1, 1, 'failed')", event.job_id)
    await endpoint.tell("ok")
    (told,) = await (await start_stage()).handle(accepted(job_id=event.job_id, run=2), ANOTHER)
    assert parse_event(told.value).run == 2
    assert await calling == ()
    rows = await database.fetch("SELECT run, state, maybe_billed FROM generation_attempts ORDER BY run")
    assert [tuple(row) for row in rows] == [(1, "abandoned", True), (2, "saved", False)]
    assert await database.fetchval("SELECT count(*) FROM customized_activities WHERE run = 2") == 3


async def test_an_entry_that_is_not_known_is_no_proof(
    stage: StageUnderTest, endpoint: Endpoint, database: Pool
) -> None:
    """A worker that has lost an entry before it began cannot take the run from who has it now."""
    await database.execute(
        "INSERT INTO generation_attempts (job_id, run, attempt, token, state, started_at, deadline)"
        " VALUES (gen_random_uuid(), 1, 1, gen_random_uuid(), 'started', now(), now() + interval '1 minute')"
    )
    job_id = await database.fetchval("SELECT job_id FROM generation_attempts")
    event = accepted(job_id=job_id)
    delivery = Delivery("job-accepted", event.key, event.encode())
    await stage.wrapped().process(delivery)
    assert await calls(endpoint) == 0


async def test_what_waits_is_one_row_and_spends_no_attempt(
    stage: StageUnderTest, start_stage: Starter, endpoint: Endpoint, database: Pool
) -> None:
    """However many entries of a run wait, one comes back, as the attempt that it was."""
    await endpoint.tell("slow")
    event = accepted()
    first = asyncio.create_task(stage.handle(event))
    await wait_for(endpoint.busy, what="the call")
    around = (await start_stage()).wrapped()
    [again] = await Seal(stage.database).sealed([Record("job-accepted", event.key, event.encode(), {ATTEMPT: b"2"})])
    for number in range(3):
        await around.process(Delivery(again.topic, again.key, again.value, again.headers, f"copy {number}"))
    await database.execute("UPDATE scheduled_events SET due_at = now()")
    async with stage.database.transaction() as connection:
        (waiting,) = await take_due(connection, now=SystemClock().now(), limit=10)
    assert (waiting.topic, waiting.value, waiting.headers[ATTEMPT]) == ("job-accepted", event.encode(), b"2")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_two_live_workers_make_one_call_of_a_repeated_event(
    start_worker: WorkerStarter, redis_url: str, endpoint: Endpoint, database: Pool
) -> None:
    """Twenty entries of one run between two processes: one is in hand during the call, all others are done with."""
    await endpoint.tell("slow")
    await asyncio.gather(start_worker(), start_worker())
    event = accepted()
    await entered(database, event)
    async with Redis.from_url(redis_url) as client:

        async def both_read() -> bool:
            if not await client.exists("job-accepted"):
                return False
            return len(await client.xinfo_consumers("job-accepted", "generation")) == 2

        async def one_in_hand() -> bool:
            (group,) = await client.xinfo_groups("job-accepted")
            return (group["pending"], group["lag"]) == (1, 0)

        await wait_for(both_read, deadline_s=40, what="both workers")
        await write(redis_url, "job-accepted", *[event.encode()] * 20)
        await wait_for(endpoint.busy, what="the call")
        await wait_for(one_in_hand, what="all other entries to be done with")
    assert await calls(endpoint) == 1
    assert await database.fetchval("SELECT array_agg(state) FROM generation_attempts") == ["started"]
    assert await database.fetchval("SELECT count(*) FROM scheduled_events") == 1


async def test_a_killed_worker_is_replaced_within_its_lease_though_duplicates_wait(
    start_worker: WorkerStarter, redis_url: str, endpoint: Endpoint, database: Pool
) -> None:
    """The entry of a worker that died is taken over when its lease is over, long before the attempt's time is."""
    await endpoint.tell("slow", count=1)
    dying = await start_worker(lease="2s")
    event = accepted()
    await entered(database, event)
    await write(redis_url, "job-accepted", event.encode())
    await wait_for(endpoint.busy, deadline_s=40, what="the call")
    await start_worker(lease="2s")
    await write(redis_url, "job-accepted", event.encode())

    async def waits() -> bool:
        return bool(await database.fetchval("SELECT count(*) FROM scheduled_events"))

    await wait_for(waits, deadline_s=40, what="the duplicate to be put off")
    dying.kill()
    # The one that died was also learning how the endpoint is asked, so its turn has to run out as well.
    await wait_for(lambda: _completed(redis_url, 1), deadline_s=75, what="the job to be completed by the other")
    assert await calls(endpoint) == 2
    rows = await database.fetch("SELECT state, maybe_billed, entry FROM generation_attempts ORDER BY attempt")
    assert [(row["state"], row["maybe_billed"]) for row in rows] == [("abandoned", True), ("saved", False)]
    assert rows[0]["entry"] == rows[1]["entry"] != ENTRY


async def _completed(redis_url: str, jobs: int) -> bool:
    """Whether so many jobs are told as completed; a fact may be written twice, which is the same fact again."""
    events = [parse_event(entry[b"event"]) for entry in await entries_of(redis_url, "job-events")]
    return len({event.id for event in events if event.type == "teamfit.job.completed.v1"}) == jobs


@pytest.mark.parametrize("state", ["arrived", "waiting", "parked"])
async def test_an_entry_of_a_run_that_waits_for_its_turn_begins_nothing(
    stage: StageUnderTest, endpoint: Endpoint, database: Pool, state: str
) -> None:
    """A copy that came too early, or comes again, makes no call and says nothing; once released, the run goes on."""
    event = accepted()
    async with stage.database.transaction() as connection:
        await enter(connection, [record(JOB_ACCEPTED, event)])
    await database.execute("UPDATE dispatch_runs SET state = $2 WHERE job_id = $1", event.job_id, state)
    assert await stage.handle(event) == ()
    assert await database.fetchval("SELECT count(*) FROM generation_attempts WHERE job_id = $1", event.job_id) == 0
    assert await calls(endpoint) == 0
    await database.execute("UPDATE dispatch_runs SET state = 'released' WHERE job_id = $1", event.job_id)
    assert await stage.handle(event, ANOTHER) != ()
    assert await calls(endpoint) == 1
