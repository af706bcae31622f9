"""Replay on a real Postgres: what a plan says, what applying it does, and what it refuses."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest

from producers.replay.apply import Progress
from producers.replay.errors import PlanAborted, PlanBusy, PlanChanged, QuotaNotReleased
from producers.replay.failed import OpenOnes
from streams.delivery.dead_letters import dead_letter
from streams.delivery.deliveries import Delivery
from streams.delivery.publisher import BrokerDown
from streams.delivery.seal import Seal
from streams.jobs.events import JobAccepted, JobFailed, JobRejected, JobRequested, fact_id, parse_event
from streams.jobs.outcomes import complete_runs, decide_outcome
from streams.jobs.stages import GENERATION, PROJECTION, QUOTA, RELEASED_TO, RUN_TOPICS
from streams.jobs.topics import JOB_ACCEPTED, JOB_EVENTS, JOB_REQUESTS
from tests.conftest import Pool
from tests.integration.quota_scene import completed, request, state, usage
from tests.integration.replay_scene import REFUSAL, Scene, open_scene, poison


@pytest.fixture
async def scene(database: Pool, database_url: str) -> AsyncIterator[Scene]:
    """A database with one organization."""
    async with open_scene(database, database_url) as scene:
        yield scene


async def test_a_failed_generation_starts_over_as_the_next_run(scene: Scene) -> None:
    """The job keeps its ID and its wish, gets run 2, and passes quota again: one unit, not two."""
    wanted = await scene.failed_generation()
    plan = await scene.apply(await scene.plan(stage=GENERATION))
    assert (plan.state, plan.sent, plan.total) == ("finished", 1, 1)
    (sent,) = scene.topics.records
    event = parse_event(sent.value)
    assert isinstance(event, JobRequested)
    # Sealed, as only ours may ask for a further run.
    assert (sent.topic, sent.key, set(sent.headers)) == (JOB_REQUESTS, wanted.key, {"attempt", "seal"})
    assert (event.job_id, event.run, event.id) == (wanted.job_id, 2, fact_id(wanted.job_id, 2, "requested"))
    assert event.data == wanted.data
    (accepted,) = await scene.admit_replayed()
    assert isinstance(accepted, JobAccepted)
    assert accepted.run == 2
    assert await usage(scene.pool) == (1, 0)
    (row,) = await scene.rows()
    assert (row["state"], row["replayed_at"]) == ("replayed", scene.clock.now())


async def test_replaying_twice_by_mistake_changes_nothing(scene: Scene) -> None:
    """The same plan again, and another plan for the same filter, send nothing; a repeated event counts once."""
    wanted = await scene.failed_generation()
    plan = await scene.plan()
    await scene.apply(plan)
    first = list(scene.topics.records)
    await scene.admit_replayed()
    again = await scene.apply(plan)
    assert (again.state, again.sent) == ("finished", 1)
    other = await scene.plan()
    assert other.total == 0
    await scene.apply(other)
    assert scene.topics.records == []
    scene.topics.records += first + first
    await scene.admit_replayed()
    assert await usage(scene.pool) == (1, 0)
    assert await scene.pool.fetchval("SELECT count(*) FROM quota_ledger WHERE job_id = $1", wanted.job_id) == 2


async def test_a_replay_finds_the_quota_used_up(scene: Scene) -> None:
    """A replayed run has no right to a unit: with none left, the quota stage rejects it."""
    await scene.failed_generation()
    await scene.pool.execute("UPDATE subscriptions SET monthly_quota = 0")
    plan = await scene.plan()
    (effect,) = plan.effects.quota
    assert (effect.organization_id, effect.units, effect.units_left, effect.short) == ("acme", 1, 0, 1)
    await scene.apply(plan)
    (rejected,) = await scene.admit_replayed()
    assert isinstance(rejected, JobRejected)
    assert (rejected.run, rejected.data.code) == (2, "quota_exceeded")
    assert await usage(scene.pool) == (0, 0)


async def test_a_run_that_nobody_ended_is_ended_first(scene: Scene) -> None:
    """A poison event's run is failed, its unit comes back, and only then does the next run ask for one.

    With one unit of quota the next run would be rejected if it came before the release.
    """
    await scene.pool.execute("UPDATE subscriptions SET monthly_quota = 1")
    wanted = await scene.poisoned_generation()
    plan = await scene.plan()
    assert (plan.effects.ends_first, plan.effects.quota[0].given_back, plan.effects.quota[0].short) == (1, 1, 0)
    with pytest.raises(QuotaNotReleased, match="1 jobs still hold quota"):
        await scene.apply(plan)
    (sent,) = scene.topics.records
    fact = parse_event(sent.value)
    assert isinstance(fact, JobFailed)
    assert (sent.topic, fact.run, fact.data.code) == (JOB_EVENTS, 1, "interrupted")

    await scene.settle()
    assert (await scene.apply(plan)).state == "finished"
    (accepted,) = await scene.admit_replayed()
    assert isinstance(accepted, JobAccepted)
    assert (accepted.run, await state(scene.pool, wanted)) == (2, "released")
    assert await usage(scene.pool) == (1, 0)


async def test_a_request_that_killed_the_quota_stage_starts_over(scene: Scene) -> None:
    """No unit was ever held for it, so its run is ended and the next one sent at once; the run is never missing."""
    wanted = request()
    await scene.keep(poison(JOB_REQUESTS, QUOTA, wanted.key, wanted.encode()))
    await scene.apply(await scene.plan())
    assert [(one.topic, parse_event(one.value).run) for one in scene.topics.records] == [
        (JOB_EVENTS, 1),
        (JOB_REQUESTS, 2),
    ]
    (accepted,) = await scene.admit_replayed()
    await scene.settle()
    assert accepted.run == 2
    assert await usage(scene.pool) == (1, 0)


async def test_an_event_without_a_run_counts_as_run_1(scene: Scene) -> None:
    """A request by hand need not name its run; it starts over all the same."""
    wanted = request()
    by_hand = wanted.encode().replace(b'"run":1,', b"")
    assert b'"run"' not in by_hand
    await scene.keep(poison(JOB_REQUESTS, QUOTA, wanted.key, by_hand))
    assert (await scene.plan()).effects.reruns == 1


async def test_malformed_bytes_go_back_to_the_group_that_failed_them(scene: Scene) -> None:
    """Key, event and the entry's own headers are sent byte for byte, as a first attempt, for that group alone."""
    raw = b'{"no": "\xff\x00'
    await scene.malformed(raw)
    plan = await scene.plan(stage=QUOTA)
    assert (plan.effects.reruns, plan.effects.resends) == (0, 1)
    await scene.apply(plan)
    (sent,) = scene.topics.records
    assert (sent.topic, sent.key, sent.value) == (JOB_REQUESTS, b"by-hand", raw)
    opened = await Seal(scene.database).opened(Delivery(sent.topic, sent.key, sent.value, sent.headers))
    assert opened.headers == {"origin": b"\xff\x00", "note": b"by hand", "for-group": b"quota"}


async def test_poison_that_only_looks_like_a_request_goes_back_as_it_was(scene: Scene) -> None:
    """What the transport wrote was never read by a stage; it is read before the plan calls it a rerun."""
    wanted = request()
    await scene.keep(poison(JOB_REQUESTS, QUOTA, wanted.key, wanted.encode()[:-3]))
    plan = await scene.plan()
    assert (plan.effects.reruns, plan.effects.resends) == (0, 1)


async def test_a_projection_that_failed_gets_the_fact_again(scene: Scene) -> None:
    """Any other stage's event is sent again though its job has completed: its work is still missing."""
    wanted = request()
    fact = completed(wanted)
    async with scene.database.transaction() as connection:
        await complete_runs(connection, [(wanted.job_id, 1)])
    await scene.keep(
        dead_letter(Delivery(JOB_EVENTS, fact.key, fact.encode()), group=PROJECTION, error=RuntimeError("a bug"))
    )
    await scene.apply(await scene.plan())
    (sent,) = scene.topics.records
    assert (sent.topic, sent.value, sent.headers["for-group"]) == (JOB_EVENTS, fact.encode(), b"projection")


async def test_an_event_that_fails_again_is_open_again(scene: Scene) -> None:
    """Neither a replay nor a discard hides a later failure of the same bytes."""
    await scene.malformed()
    await scene.apply(await scene.plan())
    assert (await scene.plan()).total == 0
    scene.clock.time += timedelta(minutes=1)
    await scene.malformed()
    (row,) = await scene.rows()
    assert (row["state"], row["occurrences"]) == ("open", 2)
    found = await scene.failed.find_open((await scene.plan()).filters)
    assert await scene.failed.discard(found, because="noise", by="tester") == 1
    assert (await scene.plan()).total == 0
    await scene.malformed()
    assert (await scene.plan()).total == 1


async def test_jobs_that_need_no_replay_are_listed_and_not_sent(scene: Scene) -> None:
    """Succeeded and cancelled jobs, and those with a run under way, are excluded by name."""
    succeeded, cancelled, running = [await scene.failed_generation() for _ in range(3)]
    async with scene.database.transaction() as connection:
        await complete_runs(connection, [(succeeded.job_id, 2)])
        await decide_outcome(connection, cancelled.job_id, 2, "cancelled")
    await scene.admit(running.model_copy(update={"run": 2}))
    plan = await scene.plan()
    assert {one.because: one.job_ids for one in plan.effects.excluded} == {
        "succeeded": [succeeded.job_id],
        "cancelled": [cancelled.job_id],
        "running": [running.job_id],
    }
    assert (await scene.apply(plan)).total == 0
    assert scene.topics.records == []


async def test_a_job_with_two_failed_events_starts_over_once(scene: Scene) -> None:
    """The later run's event is sent; the earlier one's is excluded, and neither is counted twice."""
    wanted = await scene.failed_generation()
    second = wanted.model_copy(update={"run": 2})
    (accepted,) = await scene.admit(second)
    async with scene.database.transaction() as connection:
        await decide_outcome(connection, wanted.job_id, 2, "failed")
    await scene.keep(
        dead_letter(Delivery(JOB_ACCEPTED, wanted.key, accepted.encode()), group=GENERATION, error=REFUSAL)
    )
    await scene.pool.execute("UPDATE quota_ledger SET state = 'released' WHERE run = 2")
    plan = await scene.plan()
    assert [(one.because, one.events) for one in plan.effects.excluded] == [("same_job", 1)]
    await scene.apply(plan)
    assert [parse_event(one.value).run for one in scene.topics.records] == [3]


async def test_an_event_that_names_another_organizations_job_is_not_sent(scene: Scene) -> None:
    """Somebody's event with the job ID of another organization starts nothing, and the job's own event is sent."""
    await scene.organization("rival")
    wanted = await scene.failed_generation("acme")
    theft = request("rival", job_id=wanted.job_id, run=7)
    await scene.keep(poison(JOB_REQUESTS, QUOTA, theft.key, theft.encode()))
    plan = await scene.plan()
    assert [one.because for one in plan.effects.excluded] == ["other_organization"]
    await scene.apply(plan)
    (event,) = [parse_event(one.value) for one in scene.topics.records]
    assert (event.data.organization_id, event.run) == ("acme", 2)


async def test_another_organizations_events_are_not_touched(scene: Scene) -> None:
    """A filter by organization plans, sends and marks that organization's events alone."""
    await scene.organization("rival")
    await scene.failed_generation("acme")
    theirs = await scene.failed_generation("rival")
    before = await scene.pool.fetchrow("SELECT * FROM failed_events WHERE job_id = $1", theirs.job_id)
    plan = await scene.plan(organization_id="acme")
    assert [one.organization_id for one in plan.effects.by_organization] == ["acme"]
    await scene.apply(plan)
    assert {parse_event(one.value).data.organization_id for one in scene.topics.records} == {"acme"}
    assert await scene.pool.fetchrow("SELECT * FROM failed_events WHERE job_id = $1", theirs.job_id) == before
    assert await usage(scene.pool, "rival") == (0, 0)


async def test_organizations_take_turns(scene: Scene) -> None:
    """Twenty events of one organization do not keep the one of another waiting: it is among the first two."""
    await scene.organization("rival")
    for _ in range(20):
        await scene.failed_generation("acme")
    await scene.failed_generation("rival")
    await scene.apply(await scene.plan())
    order = [parse_event(one.value).data.organization_id for one in scene.topics.records]
    assert "rival" in order[:2]


async def test_an_interrupted_apply_goes_on_with_the_rest(scene: Scene) -> None:
    """A process that dies after publishing a batch and before noting so repeats that batch; quota stays exact."""
    wanted = [await scene.failed_generation() for _ in range(30)]
    plan = await scene.plan()
    scene.topics.breaks_after = 2
    # Ten a batch.
    with pytest.raises(RuntimeError, match="died"):
        await scene.replays.apply(plan.id, rate=50)
    assert (await scene.plans.get(plan.id)).sent == 20
    scene.topics.breaks_after = None
    # What was published meanwhile is at work, and one of the jobs has ended again.
    published = len(scene.topics.records)
    assert published == 30
    await scene.admit_replayed()
    async with scene.database.transaction() as connection:
        await decide_outcome(connection, wanted[-1].job_id, 2, "failed")
    done = await scene.apply(plan)
    assert (done.state, done.sent) == ("finished", 30)
    assert len(scene.topics.records) == 10
    await scene.admit_replayed()
    assert await usage(scene.pool) == (30, 0)
    assert {row["state"] for row in await scene.rows()} == {"replayed"}


async def test_cancelling_stops_after_the_batch_under_way(scene: Scene) -> None:
    """Ctrl-C loses nothing and repeats nothing: what was sent is noted, and the next apply sends the rest."""
    for _ in range(20):
        await scene.failed_generation()
    plan = await scene.plan()
    some_sent = asyncio.Event()

    def report(progress: Progress) -> None:
        if progress.sent:
            some_sent.set()

    applying = asyncio.create_task(scene.replays.apply(plan.id, rate=10, report=report))
    await some_sent.wait()
    applying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await applying
    sent = (await scene.plans.get(plan.id)).sent
    assert 0 < sent < 20
    assert len(scene.topics.records) == sent
    await scene.apply(plan)
    assert Counter(parse_event(one.value).id for one in scene.topics.records).most_common(1)[0][1] == 1
    assert len(scene.topics.records) == 20


async def test_a_broker_that_is_away_leaves_the_plan_to_be_resumed(scene: Scene) -> None:
    """Nothing is noted as sent that the broker did not confirm."""
    await scene.failed_generation()
    plan = await scene.plan()
    scene.topics.breaks_after = 0
    scene.topics.error = BrokerDown("away", maybe_written=True)
    with pytest.raises(BrokerDown):
        await scene.apply(plan)
    assert (await scene.plans.get(plan.id)).sent == 0
    scene.topics.breaks_after = None
    assert (await scene.apply(plan)).state == "finished"


@pytest.mark.parametrize("change", ["replayed", "discarded", "failed again", "moved on"])
async def test_a_changed_set_is_refused(scene: Scene, change: str) -> None:
    """Nothing of a plan is sent when one of its events is no longer what it showed, and the message says which."""
    wanted = await scene.failed_generation()
    await scene.malformed()
    plan = await scene.plan()
    changed = await scene.failed_event_of(wanted)
    match change:
        case "replayed":
            await scene.apply(await scene.plan(job_id=wanted.job_id))
            scene.topics.records.clear()
        case "discarded":
            await scene.failed.discard(OpenOnes([changed], [1]), because="noise", by="tester")
        case "failed again":
            await scene.pool.execute("UPDATE failed_events SET occurrences = 2 WHERE id = $1", changed)
        case _:
            await scene.admit(wanted.model_copy(update={"run": 2}))
    with pytest.raises(PlanChanged, match=f"{changed}: .*{change}") as refused:
        await scene.apply(plan)
    assert refused.value.total == 1
    assert scene.topics.records == []
    assert (await scene.plans.get(plan.id)).state == "planned"


async def test_a_job_that_completed_meanwhile_is_not_ended(scene: Scene) -> None:
    """Between plan and act a stalled worker may still have saved; that stands, and the plan is refused."""
    wanted = await scene.poisoned_generation()
    plan = await scene.plan()
    async with scene.database.transaction() as connection:
        await complete_runs(connection, [(wanted.job_id, 1)])
    with pytest.raises(PlanChanged):
        await scene.apply(plan)
    assert scene.topics.records == []


async def test_two_operators_cannot_apply_one_plan_at_once(scene: Scene) -> None:
    """One works, the other is told; when the first is done, the second finds nothing left."""
    for _ in range(10):
        await scene.failed_generation()
    plan = await scene.plan()
    begun = asyncio.Event()
    first = asyncio.create_task(scene.replays.apply(plan.id, rate=20, report=lambda _progress: begun.set()))
    await begun.wait()
    with pytest.raises(PlanBusy):
        await scene.apply(plan)
    assert (await first).state == "finished"
    assert (await scene.apply(plan)).sent == 10
    assert len(scene.topics.records) == 10


async def test_aborting_stops_whoever_is_applying(scene: Scene) -> None:
    """No batch is sent after the abort, and an aborted plan cannot be applied."""
    for _ in range(20):
        await scene.failed_generation()
    plan = await scene.plan()
    begun = asyncio.Event()
    applying = asyncio.create_task(scene.replays.apply(plan.id, rate=10, report=lambda _progress: begun.set()))
    await begun.wait()
    aborted = await scene.plans.abort(plan.id)
    with pytest.raises(PlanAborted):
        await applying
    with pytest.raises(PlanAborted):
        await scene.apply(plan)
    left = await scene.plans.get(plan.id)
    assert (aborted.state, left.state, left.sent) == ("aborted", "aborted", len(scene.topics.records))
    assert left.sent < 20


def _onward(runs: int) -> list[tuple[str, int]]:
    """Return the topics that bring runs on after quota, with how many each gets."""
    return [(RUN_TOPICS[stage][0], runs) for stage in RELEASED_TO]


async def test_a_plan_says_what_would_follow_and_writes_nothing_else(scene: Scene) -> None:
    """Counts, quota, tokens, events downstream, and what stays behind; not a row outside the plan's tables changes."""
    wanted = [await scene.failed_generation() for _ in range(3)]
    await scene.malformed()
    fact = completed(wanted[0])
    await scene.keep(
        dead_letter(Delivery(JOB_EVENTS, fact.key, fact.encode()), group=PROJECTION, error=RuntimeError("a bug"))
    )
    await scene.pool.executemany(
        "INSERT INTO generation_attempts (job_id, run, attempt, token, state, started_at, finished_at, prompt_tokens, "
        "completion_tokens) VALUES ($1, 1, $2, gen_random_uuid(), 'failed', now(), now(), $3, $4)",
        [(uuid4(), 1, 100, 50), *((job, number, 100, 0) for job in [uuid4()] for number in (1, 2))],
    )
    before = await scene.rows()
    plan = await scene.plan(stage=GENERATION)
    effects = plan.effects
    assert (effects.events, effects.reruns, effects.resends, effects.ends_first) == (3, 3, 0, 0)
    assert [(one.stage, one.error_type, one.events) for one in effects.by_error] == [("generation", "Permanent", 3)]
    assert (effects.quota[0].units, effects.quota[0].units_left) == (3, 50)
    # One run cost 150, the other 100 twice.
    assert (effects.tokens.per_run, effects.tokens.total) == (175, 525)
    assert [(one.topic, one.records) for one in effects.sends] == [("job-requests", 3)]
    assert [(one.topic, one.records) for one in effects.follows] == [*_onward(3), ("job-events", 6)]
    assert [(one.stage, one.events, one.jobs) for one in effects.behind] == [("projection", 1, 1)]
    items = (await scene.plans.page(plan.id)).items
    assert {one.job_id: one.others_behind for one in items} == {
        wanted[0].job_id: 1,
        wanted[1].job_id: 0,
        wanted[2].job_id: 0,
    }
    assert await scene.rows() == before
    assert scene.topics.records == []
    await scene.pool.execute("UPDATE subscriptions SET priority = true")
    first = (await scene.plan(stage=GENERATION)).effects
    assert [(one.topic, one.records) for one in first.follows] == [*_onward(3), ("job-events", 6)]
    resend = (await scene.plan(stage=QUOTA)).effects
    assert [(one.topic, one.group, one.records) for one in resend.sends] == [("job-requests", "quota", 1)]


async def test_counts_at_the_end_of_their_range_stop_no_plan(scene: Scene) -> None:
    """Two calls of 2**31 - 1 tokens made every plan that covered their job an error; unknown counts are left out."""
    await scene.failed_generation()
    most = 2**31 - 1
    await scene.pool.executemany(
        "INSERT INTO generation_attempts (job_id, run, attempt, token, state, started_at, finished_at, prompt_tokens, "
        "completion_tokens) VALUES ($1, 1, $2, gen_random_uuid(), 'failed', now(), now(), $3, $4)",
        [(job, number, most, most) for job in [uuid4()] for number in (1, 2)] + [(uuid4(), 1, 1151, None)],
    )
    tokens = (await scene.plan(stage=GENERATION)).effects.tokens
    assert (tokens.per_run, tokens.total) == (4 * most, 4 * most)
