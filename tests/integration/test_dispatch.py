"""Fair dispatch on a real database: the order is the model's, and no death, race or stalled neighbour harms it."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import combinations

import pytest

from infra.errors import DependencyDown
from infra.postgres import Database
from producers.schedule.taker import Taker
from streams.delivery.deliveries import ATTEMPT, SEAL, Record
from streams.delivery.failed_events import FailedEvents
from streams.jobs import dispatch
from streams.jobs.dispatch import GivenBack, Slots
from streams.jobs.events import JobAccepted
from streams.jobs.outcomes import decide_outcome
from streams.jobs.topics import JOB_ACCEPTED, JOB_ACCEPTED_PRIORITY, record
from tests.conftest import Pool
from tests.integration.dispatch_scene import Scene, accepted, whose
from tests.integration.quota_scene import NOON, ManualClock, add_organization
from tests.unit.fairness.model import Line


@pytest.fixture
async def scene(database_url: str, database: Pool) -> AsyncIterator[Scene]:
    """A database without rows."""
    opened = Database(database_url, size=4)
    yield Scene(opened, database)
    await opened.close()


async def set_share(pool: Pool, organization: str, *, weight: float | None = None, most: int | None = None) -> None:
    """Give an organization its weight and its cap."""
    await pool.execute(
        "UPDATE subscriptions SET weight = $2, max_in_flight = $3 WHERE organization_id = $1",
        organization,
        weight,
        most,
    )


@pytest.mark.parametrize("seed", range(6))
async def test_the_order_is_that_of_the_model(scene: Scene, seed: int) -> None:
    """Whatever is sent, cancelled and ended between releases, the database releases what the model does."""
    rng = random.Random(seed)
    line = Line()
    names = [f"o{n}" for n in range(rng.randint(2, 6))]
    for name in names:
        weight, most = rng.choice((0.5, 1.0, 2.0, 4.0)), rng.choice((None, None, 1, 3))
        await add_organization(scene.pool, name)
        await set_share(scene.pool, name, weight=weight, most=most)
        line.set_terms(name, weight=weight, most=most or 10**9)
    under_way: deque[JobAccepted] = deque()
    for _ in range(60):
        match rng.choice(("send", "send", "end", "end", "cancel", "release", "release")):
            case "send":
                sent = [accepted(rng.choice(names)) for _ in range(rng.randint(1, 4))]
                for event in sorted(sent, key=lambda one: one.job_id):
                    await scene.enter(event)
                    await scene.release(0)
                    line.arrive(event.data.organization_id, event.job_id)
            case "end" if under_way:
                event, seconds = under_way.popleft(), rng.choice((0.5, 1.0, 2.0, 4.0))
                await scene.end(event, seconds=seconds)
                await scene.release(0)
                line.end(event.data.organization_id, event.job_id, seconds=seconds)
            case "cancel":
                name = rng.choice(names)
                if waiting := line.shares[name].waiting:
                    job_id = rng.choice(list(waiting))
                    await scene.pool.execute(
                        "INSERT INTO job_outcomes (job_id, run, outcome) VALUES ($1, 1, 'cancelled')", job_id
                    )
                    await scene.release(0)
                    line.cancel(name, job_id)
            case "release":
                window = len(under_way) + rng.randint(1, 9)
                released = await scene.release(window)
                under_way += released
                for event in released:
                    assert line.release() == (event.data.organization_id, event.job_id)
                if len(under_way) < window:
                    assert line.release() is None
    rows = await scene.pool.fetch("SELECT organization_id, waiting, in_flight, tag FROM dispatch_organizations")
    for row in rows:
        share = line.shares[row["organization_id"]]
        assert (row["waiting"], row["in_flight"]) == (len(share.waiting), share.in_flight)
        assert row["tag"] == pytest.approx(share.tag)


async def test_in_an_idle_system_a_run_is_released_at_once(scene: Scene) -> None:
    """What is entered is published by the next release, with the bytes that quota made; once."""
    event = accepted()
    await scene.enter(event)
    assert await scene.release() == [event]
    assert scene.published == [record(JOB_ACCEPTED, event)]
    assert await scene.release(sweep=True) == []


async def test_a_poked_dispatcher_releases_without_a_timer(scene: Scene) -> None:
    """The admission's own process publishes the run; pokes that come meanwhile are one."""
    dispatcher = scene.dispatcher()
    events = [accepted() for _ in range(3)]
    for event in events:
        await scene.enter(event)
        dispatcher.poke()
    await dispatcher.close()
    assert {one.key for one in scene.published} == {str(event.job_id).encode() for event in events}


@pytest.mark.parametrize("jobs", [300, 3_000])
async def test_a_second_customer_is_next_however_much_waits(scene: Scene, jobs: int) -> None:
    """Its job is in one of the next two releases."""
    await scene.enter(*(accepted("first") for _ in range(jobs)))
    under_way = await scene.release(50)
    await scene.enter(accepted("second"))
    order = []
    for event in under_way[:2]:
        await scene.end(event)
        order += whose(await scene.release(50))
    assert "second" in order


async def test_shares_are_by_weight_and_a_changed_weight_acts_on_what_waits(scene: Scene) -> None:
    """Weights of 5, 3 and 2 hold within two points after a thousand releases; a new one from the next release on."""
    for name, weight in (("a", 5.0), ("b", 3.0), ("c", 2.0)):
        await add_organization(scene.pool, name)
        await set_share(scene.pool, name, weight=weight)
        await scene.enter(*(accepted(name) for _ in range(800)))
    order = Counter(whose(await scene.release(1_000)))
    assert order == {"a": pytest.approx(500, abs=20), "b": pytest.approx(300, abs=20), "c": pytest.approx(200, abs=20)}
    await set_share(scene.pool, "c", weight=12.0)
    order = Counter(whose(await scene.release(1_200)))
    assert order["c"] == pytest.approx(120, abs=4)


@pytest.mark.parametrize("seed", range(4))
async def test_shares_keep_the_published_bound_with_any_number_and_any_weights(scene: Scene, seed: int) -> None:
    """After each release nobody is ahead of another, by weight, by more than one run of each."""
    rng = random.Random(seed)
    weights = {f"o{n}": round(10 ** rng.uniform(-2, 2), 3) for n in range(rng.choice((2, 3, 7, 20)))}
    for name, weight in weights.items():
        await add_organization(scene.pool, name)
        await set_share(scene.pool, name, weight=weight)
        await scene.enter(*(accepted(name) for _ in range(50)))
    served: Counter[str] = Counter()
    for nth in range(50):
        served.update(whose(await scene.release(nth + 1)))
        for one, other in combinations(weights, 2):
            apart = abs(served[one] / weights[one] - served[other] / weights[other])
            assert apart <= 1 / weights[one] + 1 / weights[other] + 1e-6
    assert served.total() == 50


async def test_who_splits_its_jobs_into_teams_gains_nothing(scene: Scene) -> None:
    """It is organizations that share, however many teams ask for one."""
    for name in ("one", "many"):
        await add_organization(scene.pool, name)
    for nth in range(40):
        split = accepted("many")
        data = split.data.model_copy(update={"team_id": f"team-{nth % 10}"})
        await scene.enter(accepted("one"), split.model_copy(update={"data": data}))
    assert Counter(whose(await scene.release(40))) == {"one": 20, "many": 20}


async def test_a_plan_has_a_weight_and_a_cap_and_priority_is_weight(scene: Scene) -> None:
    """What a subscription does not say its plan does; priority is four times the weight."""
    await add_organization(scene.pool, "plain")
    await add_organization(scene.pool, "prior", priority=True)
    await add_organization(scene.pool, "gold", plan="gold")
    await scene.pool.execute("INSERT INTO plan_shares VALUES ('gold', 2, 5)")
    for name in ("plain", "prior", "gold"):
        await scene.enter(*(accepted(name) for _ in range(100)))
    assert Counter(whose(await scene.release(14))) == {"plain": 2, "prior": 8, "gold": 4}
    assert Counter(whose(await scene.release(100)))["gold"] == 1


async def test_a_cap_is_exact_and_a_changed_one_is_found(scene: Scene) -> None:
    """Two dispatchers at once release no more than the cap; 0 pauses; a raised cap acts without an event."""
    await add_organization(scene.pool, "acme")
    await set_share(scene.pool, "acme", most=3)
    await scene.enter(*(accepted() for _ in range(20)))
    await asyncio.gather(*(scene.dispatcher().release() for _ in range(4)))
    assert len(scene.published) == 3
    await set_share(scene.pool, "acme", most=5)
    assert len(await scene.release(sweep=True)) == 2
    await set_share(scene.pool, "acme", most=0)
    for one in scene.published[:5]:
        await scene.pool.execute(
            "INSERT INTO job_outcomes (job_id, run, outcome) VALUES ($1, 1, 'failed')", one.key and one.key.decode()
        )
    assert await scene.release(sweep=True) == []
    assert await scene.states() == {"waiting": 15}
    await set_share(scene.pool, "acme")
    assert len(await scene.release(sweep=True)) == 15


async def test_dispatchers_side_by_side_release_each_run_once(scene: Scene) -> None:
    """Many at once, each with room for all, publish every run once."""
    await scene.enter(*(accepted(f"o{n % 7}") for n in range(200)))
    await asyncio.gather(*(scene.dispatcher(500).release() for _ in range(8)))
    assert len({one.key for one in scene.published}) == len(scene.published) == 200


async def test_what_was_released_and_not_published_is_published_later(scene: Scene) -> None:
    """A dispatcher that dies after its release, or whose broker is away, loses nothing and holds nothing up."""
    event = accepted()
    await scene.enter(event)
    scene.away = True
    with pytest.raises(DependencyDown):
        await scene.dispatcher().release()
    scene.away = False
    assert await scene.release(sweep=True) == []  # whoever released it may be about to publish it
    await scene.forget_publishing()
    assert await scene.release(sweep=True) == [event]
    await scene.forget_publishing()
    assert await scene.release(sweep=True) == []


async def test_a_request_that_comes_again_publishes_again_and_releases_nothing(scene: Scene) -> None:
    """After a broker lost all, quota enters its runs again: what waits keeps its place, what was released is sent."""
    first, second = accepted(), accepted()
    await scene.enter(first)
    await scene.release(1)
    await scene.enter(first, second)
    await scene.enter(second)
    assert await scene.release(1, sweep=True) == [first]
    assert await scene.states() == {"released": 1, "waiting": 1}
    await scene.end(first)
    assert await scene.release(1, sweep=True) == [second]


async def test_a_cancelled_run_that_waits_is_never_released(scene: Scene) -> None:
    """Nothing but Postgres is touched, and its neighbours do not notice."""
    gone, stays = accepted(), accepted()
    await scene.enter(gone, stays)
    await scene.release(0)
    await scene.end(gone, seconds=None, outcome="cancelled")
    assert await scene.release(1) == [stays]
    assert await scene.states() == {"released": 1}


async def test_a_run_that_ended_before_it_came_in_is_found(scene: Scene) -> None:
    """A cancellation that overtook the admission, which no trigger could tell: it is not released and leaves no row."""
    gone, stays = accepted(), accepted()
    await scene.end(gone, seconds=None, outcome="cancelled")
    await scene.enter(gone, stays)
    assert await scene.release(2) == [stays]
    await scene.release(2)
    assert await scene.states() == {"released": 1}


async def test_an_open_transaction_on_one_run_holds_up_no_other(scene: Scene) -> None:
    """Somebody cancels a run and does not commit: all others are released, and that one is seen to afterwards."""
    held, other = accepted("acme"), accepted("globex")
    await scene.enter(held, other)
    await scene.release(0)
    async with scene.database.transaction() as connection:
        await decide_outcome(connection, held.job_id, held.run, "cancelled")
        assert await scene.release() == [other]
    assert await scene.release(sweep=True) == []
    assert await scene.states() == {"released": 1}


async def test_a_retry_holds_no_slot_and_waits_its_turn_again(scene: Scene) -> None:
    """Until its retry is due another run has its slot; then it is next of its organization, as a second try."""
    clock = ManualClock()
    tried, other, third = accepted(), accepted(), accepted()
    for event in (tried, other, third):
        await scene.enter(event)
    assert await scene.release(1) == [tried]
    retry = Record(JOB_ACCEPTED, tried.key, tried.encode(), {ATTEMPT: b"2", "odd": b"\xff\x00%"})
    await GivenBack(scene.database, clock, scene.dispatcher(0)).schedule(retry, timedelta(minutes=1), reason="busy")
    assert await scene.release(1) == [other]
    clock.time = NOON + timedelta(minutes=2)
    await Taker(scene.database, scene, FailedEvents(scene.database, clock), clock).tick()
    assert await scene.release(1) == []
    await scene.end(other)
    assert await scene.release(1) == [tried]
    assert {**scene.published[-1].headers, SEAL: b""} == {**retry.headers, SEAL: b""}
    await scene.end(tried)
    assert await scene.release(1) == [third]


@pytest.mark.parametrize(
    ("came_by", "goes_on"),
    [(JOB_ACCEPTED, JOB_ACCEPTED), (JOB_ACCEPTED_PRIORITY, JOB_ACCEPTED), ("job-moderated", "job-moderated")],
)
async def test_a_retry_goes_on_at_its_own_stage(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, came_by: str, goes_on: str
) -> None:
    """It is released to the topic that its stage reads, whichever stages the run has passed before."""
    monkeypatch.setattr(dispatch, "_ONWARD", {**dispatch._ONWARD, "job-moderated": "job-moderated"})
    clock = ManualClock()
    event = accepted()
    await scene.enter(event)
    assert await scene.release(1) == [event]
    retry = Record(came_by, event.key, event.encode(), {ATTEMPT: b"2"})
    await GivenBack(scene.database, clock, scene.dispatcher(0)).schedule(retry, timedelta(minutes=1), reason="busy")
    clock.time = NOON + timedelta(minutes=2)
    await Taker(scene.database, scene, FailedEvents(scene.database, clock), clock).tick()
    assert await scene.release(1) == [event]
    assert [one.topic for one in scene.published] == [JOB_ACCEPTED, goes_on]


@pytest.mark.parametrize(("stage", "released"), [("quota", 1), ("moderation", 0), ("generation", 0)])
async def test_an_organization_that_is_paused_on_the_way_takes_no_slot(scene: Scene, stage: str, released: int) -> None:
    """In whichever stage after quota: its runs stay in their line, and others have the window."""
    await scene.pool.execute(
        "INSERT INTO fleet_controls (kind, subject, organization_id, reason, set_by, set_at) "
        "VALUES ('pause', $1, 'acme', 'they asked', 'ann', now())",
        stage,
    )
    await scene.enter(accepted("acme"))
    await scene.enter(accepted("birch"))
    assert whose(await scene.release(2)).count("acme") == released
    assert (await scene.states())["released"] == 1 + released


async def test_an_entry_that_waits_for_another_attempt_keeps_its_slot(scene: Scene) -> None:
    """A second entry of a run that is under way is put off; the run holds its slot, and the entry comes as it is."""
    clock = ManualClock()
    event, other = accepted(), accepted()
    await scene.enter(event)
    await scene.enter(other)
    await scene.release(1)
    await scene.pool.execute(
        "INSERT INTO generation_attempts (job_id, run, attempt, token, state, started_at) "
        "VALUES ($1, 1, 1, gen_random_uuid(), 'started', now())",
        event.job_id,
    )
    again = record(JOB_ACCEPTED, event)
    await GivenBack(scene.database, clock, scene.dispatcher(0)).schedule(again, timedelta(minutes=1), reason="put off")
    assert await scene.release(1) == []
    clock.time = NOON + timedelta(minutes=2)
    await Taker(scene.database, scene, FailedEvents(scene.database, clock), clock).tick()
    assert scene.published[-1] == again


async def test_replays_come_after_what_is_new_of_their_organization(scene: Scene) -> None:
    """A replay of many runs delays neither another customer's new job nor its own."""
    await scene.enter(*(accepted("acme", run=2) for _ in range(50)))
    await scene.release(5)
    fresh, others = accepted("acme"), accepted("globex")
    await scene.enter(fresh, others)
    released = await scene.release(8)
    assert {event.job_id for event in released} >= {fresh.job_id, others.job_id}


async def test_a_released_run_that_is_cancelled_has_paid_for_its_place(scene: Scene) -> None:
    """Who cancels what was released and sends it again is charged for as long as it kept others from the place."""
    await scene.enter(*(accepted("restless") for _ in range(4)))
    released = await scene.release(2)
    await scene.pool.execute(
        "UPDATE dispatch_runs SET released_at = now() - interval '10 seconds' WHERE state = 'released'"
    )
    for event in released:
        await scene.end(event, seconds=None, outcome="cancelled")
    await scene.release(0)
    assert await scene.pool.fetchval("SELECT tag FROM dispatch_organizations") >= 20


async def test_the_window_follows_the_workers(scene: Scene) -> None:
    """A worker that is here counts, and an eighth more; one that is gone does not."""
    events = [accepted() for _ in range(200)]
    await scene.enter(*events)
    here, gone = (
        Slots(scene.database, events[0].job_id, lambda: 16),
        Slots(scene.database, events[1].job_id, lambda: 64),
    )
    await here.tell()
    await gone.tell()
    await gone.withdraw()
    assert len(await scene.release(None)) == 18


async def test_one_record_that_cannot_be_published_holds_up_no_other(scene: Scene) -> None:
    """The broker refuses one entry for what it is; the others go out, and it is tried again later."""
    events = [accepted() for _ in range(5)]
    refused = str(events[2].job_id).encode()

    class Picky(Scene):
        async def publish(self, records: "list[Record]") -> None:  # type: ignore[override]  # any sequence will do
            if any(one.key == refused for one in records):
                raise ValueError("too large")
            await super().publish(records)

    picky = Picky(scene.database, scene.pool)
    await picky.enter(*events)
    assert len(await picky.release()) == 4
    assert await scene.pool.fetchval("SELECT count(*) FROM dispatch_runs WHERE NOT published") == 1
