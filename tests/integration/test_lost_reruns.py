"""A replayed run whose request the broker loses right after it was sent."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from infra.local.servers import start_valkey
from infra.settings import Settings
from producers.broker import Broker
from producers.reconcile.reconciler import Reconciler
from producers.replay.apply import Replays
from streams.delivery.scheduled import keep
from streams.jobs.events import JobAccepted, JobRequested
from streams.jobs.topics import JOB_REQUESTS, record
from tests.conftest import Pool
from tests.integration.pipeline_scene import Pipeline
from tests.integration.quota_scene import failed, usage
from tests.integration.replay_scene import Scene, open_scene
from tests.stream_entries import entries_of

THRESHOLD = timedelta(minutes=10)


@pytest.fixture
async def broker_url() -> AsyncIterator[str]:
    """A Valkey of the test's own, which it may flush."""
    with await asyncio.to_thread(start_valkey, append_only=False) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture
async def broker(broker_url: str) -> AsyncIterator[Broker]:
    """A real connection to it."""
    opened = Broker(Settings(broker_url=broker_url, _env_file=None), name="test")
    yield opened
    await opened.close()


@pytest.fixture
async def scene(database: Pool, database_url: str) -> AsyncIterator[Scene]:
    """A database with one organization."""
    async with open_scene(database, database_url) as scene:
        yield scene


@pytest.fixture
def reconciler(scene: Scene, broker: Broker) -> Reconciler:
    """The reconciler, by the scene's clock."""
    return Reconciler(
        scene.database,
        broker,
        scene.clock,
        threshold=THRESHOLD,
        expiry=timedelta(days=1),
        attempt_time=timedelta(minutes=2),
        seconds=lambda: scene.clock.now().timestamp(),
    )


async def replay(scene: Scene, broker: Broker, broker_url: str) -> bytes:
    """Fail a job for good, and replay it; return the request for its next run as it was sent."""
    wanted = await scene.failed_generation()
    await Pipeline(scene.database).project(wanted, failed(wanted))
    plan = await scene.plan()
    await Replays(scene.database, broker, scene.clock).apply(plan.id, rate=1000)
    (entry,) = await entries_of(broker_url, JOB_REQUESTS)
    return entry[b"event"]


async def later(scene: Scene, reconciler: Reconciler) -> int:
    """Let a good deal more than the threshold pass; return how many runs the reconciler then finds."""
    scene.clock.time += 3 * THRESHOLD
    return await reconciler.reconcile()


async def flush(broker_url: str) -> None:
    """Make the broker forget everything."""
    async with Redis.from_url(broker_url) as client:
        await client.flushall()


def reemitted() -> float:
    """How many requests were sent again, as an operator sees it."""
    labels = {"type": "teamfit.job.requested.v1"}
    return REGISTRY.get_sample_value("teamfit_reemitted_total", labels) or 0.0


async def test_a_replayed_run_that_a_flush_loses_is_sent_again_byte_for_byte(
    scene: Scene, broker: Broker, broker_url: str, reconciler: Reconciler
) -> None:
    """No ledger and no archive knows of it: the plan does. It goes on as run 2, takes one unit, and is left alone."""
    sent = await replay(scene, broker, broker_url)
    before = reemitted()
    await flush(broker_url)
    assert await later(scene, reconciler) == 1
    (entry,) = await entries_of(broker_url, JOB_REQUESTS)
    assert (entry[b"event"], reemitted()) == (sent, before + 1)

    again = JobRequested.model_validate_json(sent)
    assert again.run == 2
    await Pipeline(scene.database).project(again)
    accepted, _ = await scene.admit(again, again)
    assert isinstance(accepted, JobAccepted)
    assert await usage(scene.pool) == (1, 0)
    assert await scene.pool.fetchval("SELECT arrived FROM replay_plan_items") is False
    await reconciler.reconcile()
    assert await scene.pool.fetchval("SELECT arrived FROM replay_plan_items") is True


async def test_it_is_sent_again_ever_more_rarely(
    scene: Scene, broker: Broker, broker_url: str, reconciler: Reconciler
) -> None:
    """While nobody reads, the same request does not pile up."""
    await replay(scene, broker, broker_url)
    await flush(broker_url)
    scene.clock.time += THRESHOLD
    found = []
    for _ in range(8):
        found.append(await reconciler.reconcile())
        scene.clock.time += THRESHOLD
    assert found == [0, 1, 0, 1, 0, 0, 0, 1]
    assert len({entry[b"event"] for entry in await entries_of(broker_url, JOB_REQUESTS)}) == 1


async def test_what_is_young_scheduled_archived_or_unsent_is_not_lost(
    scene: Scene, broker: Broker, broker_url: str, reconciler: Reconciler
) -> None:
    """Nothing is sent that has its time yet, waits elsewhere, has arrived, or was never sent."""
    sent = JobRequested.model_validate_json(await replay(scene, broker, broker_url))
    await scene.failed_generation()
    await scene.plan()
    assert await reconciler.reconcile() == 0
    async with scene.database.transaction() as connection:
        now = scene.clock.now()
        await keep(connection, record(JOB_REQUESTS, sent), now=now, due_at=now + timedelta(days=9), reason="test")
    assert await later(scene, reconciler) == 0
    await scene.pool.execute("DELETE FROM scheduled_events")
    await Pipeline(scene.database).project(sent, failed(sent))
    assert await later(scene, reconciler) == 0
    assert await scene.pool.fetchval("SELECT count(*) FROM replay_plan_items WHERE arrived") == 1


async def test_of_two_plans_for_one_run_one_request_is_sent(
    scene: Scene, broker: Broker, broker_url: str, reconciler: Reconciler
) -> None:
    """A run may be asked for by two plans; each round sends it once."""
    await replay(scene, broker, broker_url)
    await scene.pool.execute(
        "INSERT INTO replay_plan_items SELECT (jsonb_populate_record(item, '{\"position\": 2}')).*"
        " FROM replay_plan_items AS item"
    )
    assert await later(scene, reconciler) == 1
