"""What webhooks owe, broken by hand: what is not recorded, what is not true, and what nobody can find."""

from collections.abc import AsyncIterator
from datetime import timedelta

import orjson
import pytest

from infra.operations.erase import erase_texts, find_texts
from producers.cancellation import Cancellation
from producers.schedule.retention import Retention
from streams.jobs.events import JobRequested, parse_event
from streams.jobs.organization_facts import Reached, budget_reached
from tests.conftest import Pool
from tests.integration.pipeline_scene import Pipeline
from tests.integration.test_failures import Topics
from tests.integration.verify.conftest import Checker, finding
from tests.integration.webhooks_scene import Receiver, Scene, receiving

RECORDED, TRUE, FINDABLE = "webhooks are recorded", "webhooks are true", "webhooks are findable"
_MARK = (
    "INSERT INTO budget_marks (organization_id, period, percent, budget, cost, reached_at) "
    "VALUES ('acme', '2031-04', $1, 50, 50, clock_timestamp())"
)


@pytest.fixture
async def scene(pipeline: Pipeline, database: Pool) -> AsyncIterator[Scene]:
    """The webhooks stage's handlers beside the others."""
    scene = Scene(database, pipeline.database)
    yield scene
    await scene.sender.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A customer's server."""
    async with receiving() as one:
        yield one


async def _broken(check: Checker, **options: object) -> dict[str, str]:
    report = await check(**{"patience": timedelta(), **options})
    return {one.name: "\n".join(one.examples) for one in report.violated if one.name.startswith("webhooks")}


async def _hear(scene: Scene, job: JobRequested) -> None:
    """Take the end of a job as it comes from the broker."""
    event = await scene.pool.fetchval(
        "SELECT event FROM job_events WHERE job_id = $1 AND type <> 'teamfit.job.requested.v1'", job.job_id
    )
    await scene.hear(parse_event(orjson.dumps(orjson.loads(event) if isinstance(event, str) else event)))


async def test_an_end_without_its_delivery_is_reported(
    pipeline: Pipeline, scene: Scene, receiver: Receiver, check: Checker
) -> None:
    """For each endpoint that wants it, once it is older than the patience; what came before the endpoint is no debt."""
    await pipeline.complete()
    both = await scene.add(receiver)
    failures = await scene.add(receiver, "acme", "job.failed")
    good, bad = await pipeline.complete(), await pipeline.fail()
    assert await _broken(check, patience=timedelta(minutes=5)) == {}
    found = await _broken(check)
    assert set(found) == {RECORDED}
    assert sorted(found[RECORDED].splitlines()) == sorted(
        f"acme endpoint {endpoint.endpoint.id}: {job.job_id} run 1 {how}, no delivery"
        for endpoint, job, how in ((both, good, "completed"), (both, bad, "failed"), (failures, bad, "failed"))
    )
    for job in (good, bad):
        await _hear(scene, job)
    report = await check(patience=timedelta())
    assert report.ok, report.explain()
    assert [finding(report, name).checked for name in (RECORDED, TRUE, FINDABLE)] == [3, 3, 3]
    assert finding(report, FINDABLE).detail == "0 delivered, 3 waiting, 0 given up"


async def test_a_budget_without_its_delivery_is_reported(
    scene: Scene, receiver: Receiver, database: Pool, check: Checker
) -> None:
    """Each mark; and a delivery of a mark that was never reached is a lie."""
    await scene.add(receiver)
    for percent in (80, 100):
        await database.execute(_MARK, percent)
    told = Reached(organization_id="acme", period="2031-04", percent=80, budget=50, kind="hard", spent=40)
    await scene.hear(budget_reached(told, at=scene.clock.now()))
    found = await _broken(check)
    assert set(found) == {RECORDED}
    assert "budget of 2031-04 at 100 %, no delivery" in found[RECORDED]
    assert "at 80" not in found[RECORDED]
    await database.execute("DELETE FROM budget_marks")
    assert "budget.reached" in (await _broken(check))[TRUE]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE webhook_deliveries SET event_id = 'made-up'",
        "UPDATE webhook_deliveries SET job_id = gen_random_uuid()",
        "UPDATE webhook_deliveries SET type = 'job.failed'",
        "UPDATE webhook_endpoints SET organization_id = 'free'",
    ],
)
async def test_what_did_not_happen_or_is_anothers_is_reported(
    pipeline: Pipeline, scene: Scene, receiver: Receiver, database: Pool, check: Checker, change: str
) -> None:
    """An event that is not in the archive, of another job, of another kind, or told to another organization."""
    endpoint = (await scene.add(receiver)).endpoint
    await _hear(scene, await pipeline.complete())
    assert await _broken(check) == {}
    await database.execute(change)
    assert f"endpoint {endpoint.id}" in (await _broken(check))[TRUE]


async def test_what_was_given_up_and_cannot_be_found_is_reported(
    pipeline: Pipeline, scene: Scene, receiver: Receiver, database: Pool, check: Checker
) -> None:
    """Its failed event is gone, or is that of another endpoint; one that was discarded is there."""
    endpoint = (await scene.add(receiver)).endpoint
    await _hear(scene, await pipeline.complete())
    due = await database.fetchval("SELECT event FROM webhook_deliveries")
    await database.execute("UPDATE webhook_deliveries SET given_up_at = now()")
    assert f"endpoint {endpoint.id}" in (await _broken(check))[FINDABLE]
    for event, kept in (
        (due, False),
        (due[:-1] + f',"webhookendpoint":"{endpoint.id}"}}'.encode(), True),
        (None, True),
    ):
        await database.execute("DELETE FROM failed_events")
        await database.execute(
            "INSERT INTO failed_events (id, topic, stage, reason, error_type, error_message, attempts, first_failed_at,"
            " last_failed_at, event_id, event, discarded_at) SELECT gen_random_uuid(), 'job-events', 'webhooks',"
            " 'given_up', 'WebhookNotTaken', 'no', 10, now(), now(), event_id, $1, now() FROM webhook_deliveries",
            event,
        )
        assert (FINDABLE not in await _broken(check)) is kept


async def test_what_was_deleted_on_purpose_is_not_missed(
    pipeline: Pipeline, scene: Scene, receiver: Receiver, database: Pool, check: Checker
) -> None:
    """By retention, which is younger than the archive's; by an erasure, after which nothing is told once more."""
    await scene.add(receiver)
    old = [await pipeline.complete() for _ in range(2)]
    for job in old:
        await _hear(scene, job)
    for table, column in (("webhook_deliveries", "created_at"), ("job_events", "archived_at")):
        await database.execute(f"UPDATE {table} SET {column} = now() - interval '31 days'")
    await database.execute("UPDATE webhook_endpoints SET compared_from = now() - interval '60 days'")
    assert await Retention(scene.database, scene.clock, keep=timedelta(days=400)).delete_webhooks() == 2
    await _hear(scene, await pipeline.complete())
    assert await _broken(check) == {}
    await database.execute("DELETE FROM webhook_deliveries")
    assert RECORDED in await _broken(check), "what is younger is missed"

    await scene.facts.catch_up()
    cancellation = Cancellation(scene.database, Topics(), scene.clock)
    await erase_texts(scene.database, cancellation, await find_texts(scene.database, "acme"), operator="ops")
    assert await _broken(check) == {}
    scene.clock.skipped += timedelta(minutes=3)
    assert await scene.facts.catch_up() == 0


async def test_facts_past_their_retention_are_not_asked_for(
    pipeline: Pipeline, scene: Scene, receiver: Receiver, database: Pool, check: Checker
) -> None:
    """The archive may be kept for less long than the deliveries."""
    await scene.add(receiver)
    await _hear(scene, await pipeline.complete())
    await database.execute("DELETE FROM job_events")
    assert TRUE in await _broken(check)
    await database.execute(
        "INSERT INTO archive_retention (horizon, deleted_events) VALUES (now() + interval '9 years', 1)"
    )
    assert await _broken(check) == {}
