"""What a job waits for, as its customer and an operator read it, and where its time has gone."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from infra.operations.jobs import life_of
from infra.postgres import Database
from streams.delivery.deliveries import Record
from streams.jobs import waits
from streams.jobs.dispatch import Dispatcher, GivenBack
from streams.jobs.stages import RELEASED_TO
from streams.jobs.topics import JOB_ACCEPTED
from streams.jobs.waits import Spent, Step
from tests.api_server import api_settings, bearer, serving
from tests.conftest import Pool
from tests.integration.dispatch_scene import accepted
from tests.integration.pipeline_scene import Pipeline, pipeline_on
from tests.integration.quota_scene import add_organization, request

_BEGIN = """
INSERT INTO generation_attempts (job_id, run, attempt, token, state, started_at, entered_at, released_at)
SELECT job_id, run, 1, gen_random_uuid(), 'started', clock_timestamp(), entered_at, released_at
FROM dispatch_runs WHERE job_id = $1
"""
_PAST = """
INSERT INTO generation_attempts
    (job_id, run, attempt, token, state, entered_at, released_at, started_at, finished_at)
SELECT $1, 1, $2, gen_random_uuid(), 'failed', at + a * s, at + b * s, at + c * s, at + d * s
FROM (SELECT interval '1 second' AS s, $3::timestamptz AS at,
    $4::float8 AS a, $5::float8 AS b, $6::float8 AS c, $7::float8 AS d) AS given
"""


_PAUSE = """
INSERT INTO fleet_controls (kind, subject, reason, set_by, set_at, expires_at)
VALUES ('pause', $1, 'why', 'ann', now(), $2)
"""


async def _nothing(_records: object) -> None:
    """Publish nothing: no worker is there to begin it."""


class _Nobody:
    """A broker that keeps nothing."""

    publish = staticmethod(_nothing)


@pytest.fixture
async def pipeline(database: Pool, database_url: str) -> AsyncIterator[Pipeline]:
    """The handlers, by the clock of this moment, and a customer."""
    await add_organization(database, "acme", monthly_quota=100)
    async with pipeline_on(database_url) as opened:
        opened.clock.time = datetime.now(UTC)
        yield opened


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """An API on the test's database."""
    async with serving(api_settings(database_url=database_url)) as session:
        yield session


async def _release(database: Database, window: int) -> None:
    await Dispatcher(database, _Nobody(), window=window).release(sweep=True)


async def test_every_gate_is_named_while_a_run_stands_at_it(
    pipeline: Pipeline, api: aiohttp.ClientSession, database: Pool
) -> None:
    """From its place in the line to the end, the customer reads the gate that the operator reads."""

    async def gate(job_id: Any) -> tuple[str | None, int | None]:
        async with api.get(f"/api/jobs/{job_id}", headers=bearer()) as answer:
            assert answer.status == 200
            told = (await answer.json())["waiting_for"]
        shown = (await life_of(pipeline.database, job_id)).waiting_for
        assert (told and told["gate"]) == (shown and shown.gate)
        return (told["gate"], told["before"]) if told else (None, None)

    first, second = await pipeline.accept(), await pipeline.accept()
    await _release(pipeline.database, 0)
    assert [await gate(one.job_id) for one in (first, second)] == [("turn", 0), ("turn", 1)]
    await database.execute("UPDATE subscriptions SET max_in_flight = 0")
    assert await gate(first.job_id) == ("pause", 0)
    await database.execute("UPDATE subscriptions SET max_in_flight = 1")
    await _release(pipeline.database, 5)
    assert [await gate(one.job_id) for one in (first, second)] == [("worker", None), ("cap", 0)]
    await database.execute("INSERT INTO llm_gate VALUES ('https://llm', now() + interval '1 minute', 'rate_limited')")
    assert await gate(first.job_id) == ("endpoint", None)
    await database.execute("DELETE FROM llm_gate")
    await database.execute(_BEGIN, first.job_id)
    assert await gate(first.job_id) == (None, None)
    await database.execute("UPDATE generation_attempts SET state = 'failed', finished_at = clock_timestamp()")
    event = accepted(job_id=first.job_id)
    back = GivenBack(pipeline.database, pipeline.clock, Dispatcher(pipeline.database, _Nobody(), window=0))
    await back.schedule(Record(JOB_ACCEPTED, event.key, event.encode()), timedelta(minutes=1), reason="busy")
    assert await gate(first.job_id) == ("retry", None)
    await pipeline.complete(second)
    assert await gate(second.job_id) == (None, None)


async def test_a_request_that_nobody_has_admitted_waits_for_quota_or_its_time(
    pipeline: Pipeline, api: aiohttp.ClientSession, database: Pool
) -> None:
    """The intake has it; a time that it was asked for is named with the moment."""
    event = request()
    later = datetime.now(UTC) + timedelta(hours=1)
    await database.execute(
        "INSERT INTO job_requests (job_id, organization_id, team_id, event) VALUES ($1, 'acme', 'acme-team', $2)",
        *(event.job_id, event.model_dump_json()),
    )
    async with api.get(f"/api/jobs/{event.job_id}", headers=bearer()) as answer:
        assert (await answer.json())["waiting_for"]["gate"] == "quota"
    await database.execute(
        "UPDATE job_requests SET event = jsonb_set(event, '{data,run_at}', to_jsonb($1::text))", later.isoformat()
    )
    await database.execute(
        "INSERT INTO scheduled_events (id, topic, key, event, headers, due_at, reason, created_at) VALUES"
        " (gen_random_uuid(), 'job-requests', convert_to($1, 'UTF8'), '', '{}', $2, 'run_at', now())",
        *(str(event.job_id), later),
    )
    async with api.get(f"/api/jobs/{event.job_id}", headers=bearer()) as answer:
        told = (await answer.json())["waiting_for"]
    assert (told["gate"], datetime.fromisoformat(told["until"])) == ("run_at", later)


async def test_a_pause_of_any_stage_on_the_way_is_told(
    pipeline: Pipeline, database: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One between quota and generation as well: the run waits until that ends; other stages' pauses keep nobody."""
    monkeypatch.setattr(waits, "RELEASED_TO", ("moderation", *RELEASED_TO))
    lined, released = await pipeline.accept(), await pipeline.accept()
    await _release(pipeline.database, 0)
    await database.execute("UPDATE dispatch_runs SET state = 'released' WHERE job_id = $1", released.job_id)

    async def gates() -> list[tuple[str, datetime | None]]:
        told = [(await life_of(pipeline.database, one.job_id)).waiting_for for one in (lined, released)]
        return [(one.gate, one.until) for one in told if one is not None]

    free = [("turn", None), ("worker", None)]
    assert await gates() == free
    until = datetime.now(UTC) + timedelta(hours=1)
    for stage in ("moderation", "generation"):
        await database.execute(_PAUSE, stage, until)
        assert await gates() == [("pause", until), ("pause", until)]
        await database.execute("DELETE FROM fleet_controls")
    for stage in ("quota", "projection"):
        await database.execute(_PAUSE, stage, until)
        assert await gates() == free


@pytest.mark.parametrize(
    ("attempts", "steps"),
    [
        ([(1, 61, 63, 70), (100, 110, 111, 120)], {"quota": 1, "turn": 70, "worker": 3, "call": 16, "retry": 30}),
        # Taken over from a worker that was killed: two attempts of one release.
        ([(1, 11, 12, 40), (1, 11, 41, 120)], {"quota": 1, "turn": 10, "worker": 2, "call": 107}),
        # A clock was set back and on between the marks.
        ([(1, 0, 130, 20), (-5, 30, 110, 120)], {"quota": 1, "worker": 119}),
        ([], {"quota": 1, "turn": 119}),
    ],
)
async def test_the_times_add_up_to_the_whole(
    pipeline: Pipeline, database: Pool, attempts: list[tuple[float, ...]], steps: dict[Step, float]
) -> None:
    """Whatever has happened to a run, each moment of it counts for one step, and for one alone."""
    event = await pipeline.accept()
    asked = datetime.now(UTC) - timedelta(seconds=500)
    await database.execute("UPDATE job_requests SET accepted_at = $1", asked)
    await database.execute("UPDATE quota_ledger SET decided_at = $1", asked + timedelta(seconds=1))
    for nth, marks in enumerate(attempts, 1):
        await database.execute(_PAST, event.job_id, nth, asked, *marks)
    await database.execute(
        "INSERT INTO job_outcomes (job_id, run, outcome, decided_at) VALUES ($1, 1, 'failed', $2)",
        *(event.job_id, asked + timedelta(seconds=120)),
    )
    await _release(pipeline.database, 0)
    spent = (await life_of(pipeline.database, event.job_id)).spent
    assert [one for one in spent if one.seconds] == [Spent(1, step, seconds) for step, seconds in steps.items()]
    assert sum(one.seconds for one in spent) == 120


async def test_how_many_come_first_changes_no_tag(
    pipeline: Pipeline, api: aiohttp.ClientSession, database: Pool
) -> None:
    """A client that follows a job is not woken by each step of the line; the tag is weak, as the answer differs."""
    first, second = await pipeline.accept(), await pipeline.accept()
    await _release(pipeline.database, 0)
    await database.execute("UPDATE subscriptions SET max_in_flight = 5")
    tags = []
    for ended in (None, first):
        if ended:
            await pipeline.complete(ended)
            await _release(pipeline.database, 0)
        async with api.get(f"/api/jobs/{second.job_id}", headers=bearer()) as answer:
            tags.append(answer.headers["ETag"])
            assert (await answer.json())["waiting_for"]["before"] == (0 if ended else 1)
    assert tags[0] == tags[1]
    assert tags[0].startswith('W/"')
