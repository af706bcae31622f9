"""Cancelling a job at any moment of its life: it ends once, and gives back what it held."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from itertools import permutations
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from infra.errors import InvalidEvent, Permanent
from infra.postgres import Database
from streams.delivery.deliveries import Record
from streams.delivery.scheduled import keep, take_due
from streams.jobs.cancellations import cancel_run
from streams.jobs.events import CancelRequested, JobCancelRequested, JobRequested, fact_id, parse_event
from streams.jobs.outcomes import complete_runs, fail_run
from streams.jobs.topics import JOB_REQUESTS, record
from tests.conftest import Pool
from tests.integration.pipeline_world import THRESHOLD, World, asked, ledger_state, record_intake, status_of
from tests.integration.quota_scene import add_organization

TERMINAL = "type IN ('teamfit.job.completed.v1', 'teamfit.job.failed.v1', 'teamfit.job.cancelled.v1')"


@pytest.fixture
async def world(database_url: str, database: Pool) -> AsyncIterator[World]:
    """A pipeline that takes one step at a time."""
    opened = Database(database_url, size=8)
    await add_organization(database)
    yield World(opened, database)
    await opened.close()


def cancel_requested(event: JobRequested, *, organization: str = "acme") -> JobCancelRequested:
    """What the client sends to withdraw a job."""
    return JobCancelRequested(
        id=fact_id(event.job_id, 1, "cancel-requested"),
        subject=event.job_id,
        time=event.time,
        data=CancelRequested(organization_id=organization, reason="the offsite is off"),
    )


async def assert_ended_once(world: World, event: JobRequested) -> str:
    """Check that outcome, facts, read model and ledger tell the same end; return the outcome."""
    outcome = str(await world.pool.fetchval("SELECT outcome FROM job_outcomes WHERE job_id = $1", event.job_id))
    facts = await world.pool.fetch(f"SELECT type FROM job_events WHERE job_id = $1 AND {TERMINAL}", event.job_id)
    assert [row["type"] for row in facts] == [f"teamfit.job.{outcome}.v1"]
    assert (await status_of(world.pool, event) or [None])[0] == outcome
    state = await ledger_state(world.pool, event)
    if state is None:
        # Cancelled before its request was decided: nothing was ever held for the run, and nothing can be any more.
        assert outcome == "cancelled"
        await world.publish([record(JOB_REQUESTS, event)])
        await world.drain()
        assert await ledger_state(world.pool, event) is None
    else:
        assert state == ("charged" if outcome == "completed" else "released")
    activities = await world.pool.fetchval("SELECT count(*) FROM customized_activities WHERE job_id = $1", event.job_id)
    assert activities == (3 if outcome == "completed" else 0)
    return outcome


@example(choices=[1, 1], cancel_at=0, lost_at=5)  # nothing was held: its fact is lost after the archive has it
@given(choices=st.lists(st.integers(0, 7), max_size=12), cancel_at=st.integers(0, 8), lost_at=st.integers(0, 12))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_whenever_it_is_cancelled_a_job_ends_once(
    world: World, choices: Sequence[int], cancel_at: int, lost_at: int
) -> None:
    """Any order of deliveries, a cancellation at any point, everything lost at any other: one end, and exact books."""
    event = asked()
    await record_intake(world.pool, event)
    await world.publish([record(JOB_REQUESTS, event)])
    for step in range(14):
        if step == cancel_at:
            await world.publish([record(JOB_REQUESTS, cancel_requested(event))])
        if step == lost_at:
            world.waiting.clear()
        if world.waiting:
            choice = choices[step] if step < len(choices) else 0
            await world.step(choice % len(world.waiting))
    await world.drain()
    for _ in range(3):
        await world.reconcile(after=8 * THRESHOLD)
        await world.drain()
    await assert_ended_once(world, event)


async def complete(world: World, event: JobRequested) -> Sequence[Record]:
    """What saving decides."""
    async with world.database.transaction() as connection:
        await complete_runs(connection, [(event.job_id, 1)])
    return ()


async def fail(world: World, event: JobRequested) -> Sequence[Record]:
    """What giving up decides."""
    return await fail_run(world.database, world.clock, event, Permanent("llm_refusal", "it would not"))


async def cancel(world: World, event: JobRequested) -> Sequence[Record]:
    """What cancelling decides."""
    async with world.database.transaction() as connection:
        end = await cancel_run(
            connection, job_id=event.job_id, run=1, organization_id="acme", reason="off", at=world.clock.now()
        )
    return [end.fact] if end.fact else []


async def test_the_first_of_complete_fail_and_cancel_decides(world: World) -> None:
    """In every order; who comes later publishes nothing, and a repeat publishes the first fact again."""
    for order in permutations([complete, fail, cancel]):
        event = asked()
        told = [await end(world, event) for end in order]
        again = [await end(world, event) for end in order]
        outcome = await world.pool.fetchval("SELECT outcome FROM job_outcomes WHERE job_id = $1", event.job_id)
        assert f"{outcome}" == {complete: "completed", fail: "failed", cancel: "cancelled"}[order[0]]
        assert [len(one) for one in told] == [0 if order[0] is complete else 1, 0, 0]
        assert told == again


async def test_at_the_same_moment_one_of_complete_fail_and_cancel_decides(world: World) -> None:
    """Racing transactions wait for each other: never two facts, and never a fact of another outcome."""
    for _ in range(30):
        event = asked()
        told = await asyncio.gather(*(end(world, event) for end in (complete, fail, cancel, cancel)))
        outcome = await world.pool.fetchval("SELECT outcome FROM job_outcomes WHERE job_id = $1", event.job_id)
        facts = {parse_event(one.value) for records in told for one in records}
        assert [fact.type for fact in facts] == ([] if outcome == "completed" else [f"teamfit.job.{outcome}.v1"])


async def test_a_cancellation_before_its_request_holds(world: World) -> None:
    """Deliveries of one topic are not handled in order: the request finds its run ended and reserves nothing."""
    event = asked()
    await world.publish([record(JOB_REQUESTS, cancel_requested(event))])
    await world.drain()
    await world.publish([record(JOB_REQUESTS, event)])
    await world.drain()
    assert await assert_ended_once(world, event) == "cancelled"
    assert world.calls == 0


async def test_a_queued_job_never_runs(world: World) -> None:
    """Its JobAccepted is in the stream already, and comes to nothing."""
    event = asked()
    await world.publish([record(JOB_REQUESTS, event)])
    await world.step()
    await world.step()
    await world.publish(await world.cancellations.cancel(cancel_requested(event)))
    await world.drain()
    assert await assert_ended_once(world, event) == "cancelled"
    assert world.calls == 0


async def test_nobody_cancels_another_organizations_job(world: World) -> None:
    """The event is a dead letter, and the job goes on."""
    event = asked()
    await record_intake(world.pool, event)
    with pytest.raises(InvalidEvent, match="another organization"):
        await world.cancellations.cancel(cancel_requested(event, organization="rival"))
    assert await world.pool.fetchval("SELECT count(*) FROM job_outcomes") == 0


async def test_a_cancellation_that_comes_too_late_changes_nothing(world: World) -> None:
    """A completed job stays completed; nothing is published."""
    event = asked()
    await world.publish([record(JOB_REQUESTS, event)])
    await world.drain()
    assert await world.cancellations.cancel(cancel_requested(event)) == ()
    assert await assert_ended_once(world, event) == "completed"


async def test_the_newest_run_is_cancelled(world: World) -> None:
    """After a replay it is the replay that is withdrawn."""
    event = asked()
    await fail(world, event)
    second = event.model_copy(update={"run": 2, "id": str(uuid4())})
    await world.admissions.admit([second])
    [told] = await world.cancellations.cancel(cancel_requested(event))
    assert (parse_event(told.value).run, parse_event(told.value).type) == (2, "teamfit.job.cancelled.v1")


async def test_a_delayed_request_in_the_stream_waits_for_its_time(world: World) -> None:
    """Quota keeps it, once, until it is due, and decides it when it comes again."""
    event = asked(run_at=world.clock.now() + timedelta(days=2))
    await world.publish([record(JOB_REQUESTS, event)] * 2)
    await world.drain()
    kept = await world.pool.fetch("SELECT topic, event, due_at FROM scheduled_events")
    assert [(row["topic"], parse_event(row["event"]), row["due_at"]) for row in kept] == [
        (JOB_REQUESTS, event, event.data.run_at)
    ]
    assert await status_of(world.pool, event) == ("pending", None)
    assert await world.reconcile(after=timedelta(days=1)) == 0
    world.clock.skipped += timedelta(days=1)
    await world.publish([record(JOB_REQUESTS, event)])
    await world.drain()
    assert await assert_ended_once(world, event) == "completed"


async def test_a_delay_that_is_too_long_is_refused(world: World) -> None:
    """With a code of its own, before a row is kept for longer than anybody remembers."""
    with pytest.raises(Permanent) as caught:
        world.delays.delayed(asked(run_at=world.clock.now() + timedelta(days=367)))
    assert caught.value.code == "run_at_too_far"
    assert not world.delays.delayed(asked(run_at=world.clock.now() - timedelta(days=1)))


async def test_a_delayed_job_that_is_withdrawn_does_not_run(world: World) -> None:
    """When its time comes, the request finds its run ended."""
    event = asked(run_at=world.clock.now() + timedelta(days=2))
    await record_intake(world.pool, event)
    await world.publish([record(JOB_REQUESTS, cancel_requested(event))])
    await world.drain()
    world.clock.skipped += timedelta(days=3)
    await world.publish([record(JOB_REQUESTS, event)])
    await world.drain()
    assert await assert_ended_once(world, event) == "cancelled"
    assert world.calls == 0


@pytest.mark.parametrize("way", ["intake", "stream"])
async def test_a_delayed_job_that_is_withdrawn_waits_no_longer(world: World, way: str) -> None:
    """Whichever way it came: its request is given out at once, the archive has it, and it is not kept again."""
    event = asked(run_at=world.clock.now() + timedelta(days=2))
    if way == "intake":
        await record_intake(world.pool, event)
        async with world.database.transaction() as connection:
            one = record(JOB_REQUESTS, event)
            await keep(connection, one, now=world.clock.now(), due_at=event.data.run_at or event.time, reason="run_at")
    else:
        await world.publish([record(JOB_REQUESTS, event)])
        await world.drain()
    assert await world.pool.fetchval("SELECT count(*) FROM scheduled_events WHERE due_at > now()") == 1
    await world.publish([record(JOB_REQUESTS, cancel_requested(event))])
    await world.drain()
    async with world.database.transaction() as connection:
        due = await take_due(connection, now=world.clock.now(), limit=10)
    assert [one.value for one in due] == [record(JOB_REQUESTS, event).value]
    await world.publish(due)
    await world.drain()
    assert await world.pool.fetchval("SELECT count(*) FROM scheduled_events") == 0
    assert await world.pool.fetchval("SELECT count(*) FROM job_events WHERE type = 'teamfit.job.requested.v1'") == 1
    assert await assert_ended_once(world, event) == "cancelled"
    assert world.calls == 0
