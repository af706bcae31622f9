"""The reconciler: what the broker loses at any moment, Postgres brings back."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from infra.errors import DependencyDown, Permanent
from infra.postgres import Database
from streams.delivery.deliveries import Record
from streams.delivery.scheduled import keep
from streams.jobs.events import JobCompleted, JobId, JobRequested, parse_event
from streams.jobs.outcomes import decide_outcome, fail_run, job_failed
from streams.jobs.stages import PROJECTION
from streams.jobs.topics import JOB_EVENTS, JOB_REQUESTS, record
from tests.conftest import Pool
from tests.integration.pipeline_world import (
    EXPIRY,
    THRESHOLD,
    World,
    asked,
    ledger_state,
    record_intake,
    status_of,
)
from tests.integration.quota_scene import add_organization, cancelled, completed, failed
from tests.waiting import wait_for


@pytest.fixture
async def world(database_url: str, database: Pool) -> AsyncIterator[World]:
    """A pipeline whose broker can lose everything."""
    opened = Database(database_url, size=4)
    await add_organization(database)
    yield World(opened, database)
    await opened.close()


async def lose_after(world: World, event: JobRequested, steps: int, *, last_first: bool) -> bool:
    """Send a request, let some records be handled, lose the rest; return whether there was a rest."""
    await world.publish([record(JOB_REQUESTS, event)])
    for _ in range(steps):
        if not world.waiting:
            return False
        await world.step(-1 if last_first else 0)
    lost = bool(world.waiting)
    world.waiting.clear()
    return lost


@pytest.mark.parametrize("last_first", [False, True])
@pytest.mark.parametrize("steps", range(5))
async def test_a_broker_that_loses_everything_loses_no_job(world: World, steps: int, last_first: bool) -> None:
    """Wherever between intake and settlement the broker forgets all, the job completes, paid and charged once."""
    event = asked()
    await record_intake(world.pool, event)
    assert await lose_after(world, event, steps, last_first=last_first)
    assert await world.reconcile() == 1
    await world.drain()
    assert await status_of(world.pool, event) == ("completed", None)
    assert await ledger_state(world.pool, event) == "charged"
    assert world.calls == 1
    assert await world.pool.fetchval("SELECT count(*) FROM job_events WHERE type LIKE '%requested%'") == 1
    assert await world.reconcile() == 0


@pytest.mark.parametrize("steps", range(1, 6))
async def test_an_event_put_into_the_stream_is_covered_once_it_is_archived(world: World, steps: int) -> None:
    """From the moment when the projection has archived it, a request that no intake recorded is as safe as others."""
    event = asked()
    await world.projection.project([event])
    await lose_after(world, event, steps, last_first=True)
    await world.reconcile()
    await world.drain()
    assert await status_of(world.pool, event) == ("completed", None)
    assert await ledger_state(world.pool, event) == "charged"
    assert world.calls == 1


async def test_a_refusal_that_was_lost_is_told_again(world: World) -> None:
    """Quota decides once: its JobRejected comes again, and nothing is reserved."""
    event = asked()
    await world.pool.execute("UPDATE subscriptions SET monthly_quota = 0")
    await record_intake(world.pool, event)
    await lose_after(world, event, 2, last_first=False)
    await world.pool.execute("UPDATE subscriptions SET monthly_quota = 9")
    await world.reconcile()
    await world.drain()
    assert await status_of(world.pool, event) == ("failed", "quota_exceeded")
    assert await ledger_state(world.pool, event) == "rejected"


async def test_a_failure_that_was_lost_is_told_again_word_for_word(world: World) -> None:
    """The fact that was kept with the outcome reaches projection and quota."""
    event = asked()
    await lose_after(world, event, 2, last_first=False)
    [told] = await fail_run(world.database, world.clock, event, Permanent("llm_refusal", "it would not"))
    await world.reconcile()
    assert {parse_event(one.value) for _, one in world.waiting} == {parse_event(told.value)}
    await world.drain()
    assert await status_of(world.pool, event) == ("failed", "llm_refusal")
    assert await ledger_state(world.pool, event) == "released"


async def test_a_completion_is_told_again_without_a_request(world: World) -> None:
    """Quota missed the JobCompleted of a job that only the stream knew of: it is made of what is saved."""
    event = asked()
    await world.publish([record(JOB_REQUESTS, event)])
    while world.waiting:
        group, one = world.waiting[0]
        if group == PROJECTION or one.topic == JOB_EVENTS:
            world.waiting.popleft()
        else:
            await world.step()
    assert (await status_of(world.pool, event), await ledger_state(world.pool, event)) == (None, "reserved")
    await world.reconcile()
    await world.drain()
    assert await status_of(world.pool, event) == ("completed", None)
    assert await ledger_state(world.pool, event) == "charged"


async def test_what_moves_or_waits_does_not_stand_still(world: World) -> None:
    """Nothing is sent again before its threshold, while an attempt is under way, or while a retry is scheduled."""
    fresh, retried, attempted = asked(), asked(), asked()
    for event in (fresh, retried, attempted):
        await record_intake(world.pool, event)
    async with world.database.transaction() as connection:
        due_at = world.clock.now() + timedelta(days=1)
        await keep(connection, record(JOB_REQUESTS, retried), now=world.clock.now(), due_at=due_at, reason="test")
    assert await world.reconcile(after=THRESHOLD * 0.9) == 0
    await world.pool.execute("DELETE FROM job_requests WHERE job_id = $1", fresh.job_id)
    await world.pool.execute(
        "INSERT INTO generation_attempts (job_id, run, attempt, token, state, started_at) "
        "VALUES ($1, 1, 1, gen_random_uuid(), 'started', $2)",
        *(attempted.job_id, world.clock.now()),
    )
    assert await world.reconcile(after=THRESHOLD * 1.1) == 0
    assert not world.waiting
    # Its worker must be dead: no attempt takes that long.
    assert await world.reconcile(after=THRESHOLD * 0.2) == 1
    assert {one.key for _, one in world.waiting} == {attempted.key}


async def test_a_job_is_sent_again_ever_more_rarely(world: World) -> None:
    """While quota is down the same request does not pile up: the pauses double, up to an hour."""
    await record_intake(world.pool, asked())
    sent = [await world.reconcile(after=THRESHOLD) for _ in range(14)]
    # After one threshold, and then 20, 40, 60, … minutes later.
    assert sent == [1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0]
    assert len({one.value for _, one in world.waiting}) == 1


async def test_a_tick_sends_a_bounded_batch_those_that_wait_longest_first(world: World) -> None:
    """A large loss is worked off in portions."""
    events = [asked() for _ in range(7)]
    for event in events:
        await record_intake(world.pool, event)
    world.reconciler.batch_size = 3
    assert [await world.reconcile(after=after) for after in (2 * THRESHOLD, *[timedelta()] * 3)] == [3, 3, 1, 0]
    keys = list(dict.fromkeys(one.key for _, one in world.waiting))
    assert keys == [event.key for event in events]


async def test_a_reservation_of_which_nothing_is_left_expires(world: World) -> None:
    """The stream was lost before the request was archived: after its expiry the run fails and gives its unit back."""
    event = asked()
    await world.admissions.admit([event])
    assert await world.reconcile(after=EXPIRY * 0.9) == 1
    assert (len(world.waiting), await ledger_state(world.pool, event)) == (0, "reserved")
    await world.reconcile(after=EXPIRY * 0.2)
    await world.drain()
    assert await status_of(world.pool, event) == ("failed", "expired")
    assert await ledger_state(world.pool, event) == "released"


async def test_an_event_that_killed_its_workers_is_not_sent_again(world: World) -> None:
    """The broker's limit of deliveries made it a dead letter: its run fails, and can be replayed."""
    event = asked()
    await record_intake(world.pool, event)
    await lose_after(world, event, 2, last_first=False)
    await world.pool.execute(
        "INSERT INTO failed_events (id, topic, stage, reason, error_type, error_message, attempts, first_failed_at, "
        "last_failed_at, event_type, job_id, run, organization_id) VALUES (gen_random_uuid(), 'job-accepted', "
        "'generation', 'poison', 'x', 'x', 6, now(), now(), 'teamfit.job.accepted.v1', $1, 1, 'acme')",
        event.job_id,
    )
    await world.reconcile()
    assert {one.topic for _, one in world.waiting} == {JOB_EVENTS}
    await world.drain()
    assert await status_of(world.pool, event) == ("failed", "dead_lettered")
    assert await ledger_state(world.pool, event) == "released"
    assert world.calls == 0


async def test_a_stage_that_fails_the_run_at_the_same_time_is_told_in_its_words(world: World) -> None:
    """It kept its letter and had not ended the run yet: the reconciler told another reason, which nobody believed."""
    event = asked()
    await record_intake(world.pool, event)
    await lose_after(world, event, 2, last_first=False)
    await world.pool.execute(
        "INSERT INTO failed_events (id, topic, stage, reason, error_type, error_message, attempts, first_failed_at, "
        "last_failed_at, event_type, job_id, run, organization_id) VALUES (gen_random_uuid(), 'job-accepted', "
        "'generation', 'error', 'x', 'x', 3, now(), now(), 'teamfit.job.accepted.v1', $1, 1, 'acme')",
        event.job_id,
    )
    fact = job_failed(event, TimeoutError("too slow"), world.clock)
    async with world.database.transaction() as stage:
        await decide_outcome(stage, event.job_id, 1, "failed", fact=fact)
        looking = asyncio.create_task(world.reconcile())
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        await wait_for(lambda: world.pool.fetchval(waits), what="the reconciler to wait for the stage")
    await looking
    assert [one.value for _, one in world.waiting if one.topic == JOB_EVENTS] != []
    await world.drain()
    assert await status_of(world.pool, event) == ("failed", fact.data.code)


async def test_jobs_of_the_celery_days_are_left_alone(world: World) -> None:
    """A row that looks alive and has no events is none of ours."""
    await world.pool.execute("INSERT INTO customization_jobs (job_id, status) VALUES (gen_random_uuid(), 'pending')")
    assert await world.reconcile(after=EXPIRY * 2) == 0


@pytest.mark.parametrize("end", [completed, failed, cancelled])
async def test_an_ended_job_is_left_alone(world: World, end: object) -> None:
    """However long ago it ended, nothing is sent."""
    assert callable(end)
    event = asked()
    await record_intake(world.pool, event)
    await world.projection.project([event, end(event)])
    assert await world.reconcile(after=EXPIRY) == 0


class Away:
    """A broker that is away."""

    async def publish(self, records: Sequence[Record]) -> None:
        raise DependencyDown("broker", "gone")


async def test_after_an_outage_the_jobs_go_on_by_themselves_first(world: World) -> None:
    """A broker that is away is said once; when it is back a whole threshold passes before anything is sent again."""
    await record_intake(world.pool, asked())
    reconciler, reconciler.publisher = world.reconciler, Away()
    world.clock.skipped += 2 * THRESHOLD
    with capture_logs() as logs:
        await reconciler.tick()
        await reconciler.tick()
    assert [line["event"] for line in logs] == ["reconcile.held"]
    assert await world.pool.fetchval("SELECT count(*) FROM reemissions") == 0
    reconciler.publisher = world
    await reconciler.tick()
    assert not world.waiting
    world.clock.skipped += THRESHOLD
    await reconciler.tick()
    assert world.waiting
    assert reconciler.held is None


async def test_two_reconcilers_do_not_send_the_same(world: World) -> None:
    """One that finds another at work leaves it to it: two leaders do no harm."""
    await record_intake(world.pool, asked())
    world.clock.skipped += 2 * THRESHOLD
    async with world.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('teamfit:reconcile'))")
        assert await world.reconciler.reconcile() == 0
    assert await world.reconciler.reconcile() == 1


async def test_the_second_run_of_a_job_is_sent_on_as_such(world: World) -> None:
    """A replayed run whose request the archive missed is asked for again under its own run and ID."""
    event = asked()
    await world.projection.project([event, failed(event)])
    second = event.model_copy(update={"run": 2, "id": "whatever replay called it"})
    await world.admissions.admit([second])
    await world.reconcile()
    await world.drain()
    assert await status_of(world.pool, event) == ("completed", None)
    assert await ledger_state(world.pool, second) == "charged"
    assert await world.pool.fetchval("SELECT run FROM customization_jobs WHERE job_id = $1", JobId(event.job_id)) == 2


async def test_a_clock_that_jumps_ahead_does_not_make_everything_stand_still(world: World) -> None:
    """Postgres's clock is set forty days forward: what is under way is left alone, and sent on if it really stands."""
    await record_intake(world.pool, asked())
    assert await world.reconcile(after=timedelta()) == 0
    world.clock.stepped += timedelta(days=40)
    await world.reconciler.tick()
    await world.reconciler.tick()
    assert not world.waiting
    world.clock.skipped += THRESHOLD
    await world.reconciler.tick()
    assert world.waiting


async def test_what_operators_have_paused_does_not_stand_still(world: World) -> None:
    """However long a pause lasts, nothing is sent again or given up; after it, a threshold passes first, as always."""
    await record_intake(world.pool, asked())
    await world.pool.execute(
        "INSERT INTO fleet_controls (kind, subject, reason, set_by) VALUES ('pause', 'generation', 'a test', 'ann')"
    )
    for _ in range(3):
        world.clock.skipped += 10 * THRESHOLD
        await world.reconciler.tick()
    await world.pool.execute("DELETE FROM fleet_controls")
    await world.reconciler.tick()
    assert not world.waiting
    world.clock.skipped += THRESHOLD
    await world.reconciler.tick()
    assert world.waiting


@pytest.mark.parametrize("steps", [0, 1, 3])
async def test_a_clock_that_was_set_back_hides_no_job(world: World, steps: int) -> None:
    """A run whose rows were written by a clock forty days ahead is sent on a threshold after it was found."""
    event = asked()
    await record_intake(world.pool, event)
    await lose_after(world, event, steps, last_first=False)
    await write_ahead(world.pool)
    assert await world.reconcile(after=timedelta()) == 0
    assert await world.reconcile() == 1
    await world.drain()
    assert await status_of(world.pool, event) == ("completed", None)
    assert await ledger_state(world.pool, event) == "charged"


async def test_a_run_that_was_sent_on_by_a_clock_ahead_is_sent_on_again(world: World) -> None:
    """When it was last sent again does not hold it back either."""
    event = asked()
    await record_intake(world.pool, event)
    assert await world.reconcile() == 1
    world.waiting.clear()
    await write_ahead(world.pool)
    assert await world.reconcile() == 1


async def write_ahead(pool: Pool) -> None:
    """Make every row look as if it had been written by a clock forty days ahead, that was then set back."""
    times = await pool.fetch(
        "SELECT table_name AS table, column_name AS column FROM information_schema.columns "
        "WHERE table_schema = current_schema() AND data_type = 'timestamp with time zone'"
    )
    for row in times:
        column = row["column"]
        await pool.execute(f'UPDATE {row["table"]} SET "{column}" = "{column}" + interval \'40 days\'')


@pytest.mark.parametrize(("prompt", "completion"), [(1151, -35), (-1, 2**31 - 1), (None, None)])
async def test_a_completion_whose_cost_nobody_can_mean_is_told_again(
    world: World, prompt: int | None, completion: int | None
) -> None:
    """One such row, as an earlier version saved it, ended the schedule worker; now its cost is unknown."""
    bad, good = asked(), asked()
    for event in (bad, good):
        await world.publish([record(JOB_REQUESTS, event)])
    while world.waiting:
        group, one = world.waiting[0]
        if group == PROJECTION or one.topic == JOB_EVENTS:
            world.waiting.popleft()
        else:
            await world.step()
    await world.pool.execute(
        "UPDATE generation_attempts SET prompt_tokens = $2, completion_tokens = $3, model = NULL WHERE job_id = $1",
        *(bad.job_id, prompt, completion),
    )
    await world.reconcile()
    told = {
        event.job_id: event.data
        for event in (parse_event(one.value) for _, one in world.waiting)
        if isinstance(event, JobCompleted)
    }
    await world.drain()
    assert told[bad.job_id].completion_tokens is None
    assert told[good.job_id].completion_tokens == 20
    for event in (bad, good):
        assert await status_of(world.pool, event) == ("completed", None)


# What may be wrong with a run's rows, by hand, by an earlier version, or because a sender was believed too much.
_DAMAGES = {
    "the request is no event": "UPDATE job_requests SET event = '{}' WHERE job_id = $1",
    "the request is a text": "UPDATE job_requests SET event = '\"x\"' WHERE job_id = $1",
    "the request is a list": "UPDATE job_requests SET event = '[{}]' WHERE job_id = $1",
    "the request has no such time": (
        "UPDATE job_requests SET event = jsonb_set(event, '{data,run_at}', '\"0001-01-01T00:00:00+20:00\"')"
        " WHERE job_id = $1"
    ),
    "the request has no data": "UPDATE job_requests SET event = event - 'data' WHERE job_id = $1",
    "its fact is no event": "INSERT INTO job_outcomes (job_id, run, outcome, fact) VALUES ($1, 1, 'failed', '{}')",
    "its fact is a text": "INSERT INTO job_outcomes (job_id, run, outcome, fact) VALUES ($1, 1, 'failed', '\"x\"')",
    "its fact is of no known type": (
        "INSERT INTO job_outcomes (job_id, run, outcome, fact) VALUES ($1, 1, 'failed', '{\"type\": \"x\"}')"
    ),
}


@pytest.mark.parametrize("damage", _DAMAGES.values(), ids=_DAMAGES)
async def test_a_run_that_cannot_be_read_is_set_aside_and_the_others_go_on(world: World, damage: str) -> None:
    """Whatever is wrong with its rows: the others complete, and why it waits is said, counted and looked at again."""
    events = [asked() for _ in range(5)]
    bad = events[2]
    for event in events:
        await record_intake(world.pool, event)
    await world.pool.execute(damage, bad.job_id)
    before = REGISTRY.get_sample_value("teamfit_set_aside_total", {"source": "reconcile"}) or 0
    with capture_logs() as logs:
        assert await world.reconcile() == 5
    [line] = [line for line in logs if line["log_level"] == "error"]
    assert (line["event"], line["job_id"]) == ("job.set_aside", str(bad.job_id))
    assert REGISTRY.get_sample_value("teamfit_set_aside_total", {"source": "reconcile"}) == before + 1
    assert await world.pool.fetchval("SELECT set_aside FROM reemissions WHERE job_id = $1", bad.job_id) == line["why"]
    await world.drain()
    assert {await status_of(world.pool, event) for event in events if event is not bad} == {("completed", None)}
    assert await world.reconcile(after=4 * THRESHOLD) == 1  # it, and nothing else


async def test_a_run_whose_event_cannot_be_published_is_set_aside_and_the_others_go_on(world: World) -> None:
    """Whatever the producer raises about one record; when it raises no more, the run goes on."""
    events = [asked() for _ in range(7)]
    for event in events:
        await record_intake(world.pool, event)
    publish = world.publish

    class Picky:
        async def publish(self, records: Sequence[Record]) -> None:
            if any(one.key == events[3].key for one in records):
                raise ValueError("no such record")
            await publish(records)

    world.reconciler.publisher = Picky()
    assert await world.reconcile() == 7
    await world.drain()
    assert {await status_of(world.pool, event) for event in events if event is not events[3]} == {("completed", None)}
    aside = "SELECT set_aside FROM reemissions WHERE job_id = $1"
    assert await world.pool.fetchval(aside, events[3].job_id) == "ValueError: no such record"
    world.reconciler.publisher = world
    assert await world.reconcile(after=4 * THRESHOLD) == 1
    await world.drain()
    assert await status_of(world.pool, events[3]) == ("completed", None)
    assert await world.pool.fetchval(aside, events[3].job_id) is None
