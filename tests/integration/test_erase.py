"""`teamfit erase`, run as an operator runs it: an organization's texts go from every table, its numbers stay."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest

from infra.bench.console_rows import Amounts, fill
from infra.operations.erase import Erased, erase_texts, find_texts
from infra.postgres import Database
from producers.broker import Broker
from producers.cancellation import Cancellation
from streams.jobs.events import JobRequested
from tests.api_server import api_settings, bearer, serving
from tests.commands import Run
from tests.conftest import Pool
from tests.integration.pipeline_scene import Pipeline, pipeline_on
from tests.integration.quota_scene import add_organization, usage
from tests.stream_entries import entries_of
from tests.verified import assert_consistent
from tests.waiting import wait_for

# What the backend owns is the backend's to erase; an idempotency key is the caller's name for a request, not a text.
_NOT_OURS = {"organizations", "subscriptions", "teams", "team_materials", "alembic_version"}


@pytest.fixture
def erase(teamfit: Run) -> Run:
    """Runs `teamfit erase`."""
    return partial(teamfit, "erase")


@pytest.fixture
async def pipeline(database: Pool, database_url: str) -> AsyncIterator[Pipeline]:
    """The stages' handlers, and two customers."""
    await add_organization(database)
    await add_organization(database, "birch")
    async with pipeline_on(database_url) as opened:
        yield opened


async def _with_texts(pipeline: Pipeline, pool: Pool, organization_id: str) -> JobRequested:
    """Leave an organization's word wherever the pipeline keeps a text; return a live job."""
    word = f"secret-{organization_id}"
    ended = await pipeline.complete(await pipeline.accept(organization_id))
    broken = await pipeline.fail(await pipeline.accept(organization_id))
    live = await pipeline.accept(organization_id)
    for job in (ended, broken, live):
        await pool.execute(
            "UPDATE job_requests SET event = jsonb_set(event, '{data,requirements}', to_jsonb($2::text))"
            " WHERE job_id = $1",
            *(job.job_id, word),
        )
        await pool.execute(
            "UPDATE job_events SET event = jsonb_set(event, '{data}', (event->'data') ||"
            " CASE WHEN type LIKE '%requested%' THEN jsonb_build_object('requirements', $2::text)"
            " WHEN type LIKE '%failed%' THEN jsonb_build_object('error_message', $2::text)"
            " WHEN type LIKE '%completed%' THEN jsonb_build_object('title', $2::text) ELSE '{}' END)"
            " WHERE job_id = $1",
            *(job.job_id, word),
        )
        await pool.execute(
            "UPDATE customization_jobs SET requirements = $2,"
            " error_message = CASE WHEN error_message IS NOT NULL THEN $2 END WHERE job_id = $1",
            *(job.job_id, word),
        )
        await pool.execute(
            "INSERT INTO scheduled_events (id, topic, key, event, due_at, reason)"
            " VALUES (gen_random_uuid(), 'job-requests', $1, $2, now(), 'retry')",
            *(str(job.job_id).encode(), word.encode()),
        )
    await pool.execute("UPDATE customized_activities SET description = $2 WHERE job_id = $1", ended.job_id, word)
    await pool.execute(
        "UPDATE customized_activities SET materials = to_jsonb($2::text), steps = to_jsonb($2::text), objective = $2"
        " WHERE job_id = $1",
        *(ended.job_id, word),
    )
    fact = f'{{"data": {{"organization_id": "{organization_id}", "error_message": "{word}"}}}}'
    await pool.execute("UPDATE job_outcomes SET fact = $2 WHERE job_id = $1", broken.job_id, fact)
    await pool.execute(
        "INSERT INTO failed_events (id, topic, stage, reason, key, event, headers, error_type, error_message,"
        " traceback, attempts, first_failed_at, last_failed_at, job_id, run, organization_id)"
        " VALUES (gen_random_uuid(), 'job-accepted', 'generation', 'given_up',"
        " $1, $2, $3, 'E', $4, $4, 1, now(), now(), $5, 1, $6)",
        *(str(broken.job_id).encode(), word.encode(), json.dumps({"note": word}), word),
        *(broken.job_id, organization_id),
    )
    await withdraw_early(pool, organization_id, word)
    return live


async def withdraw_early(pool: Pool, organization_id: str, reason: str) -> None:
    """Leave a cancellation of a job that nobody has asked for."""
    event = {"run": 1, "data": {"organization_id": organization_id, "reason": reason}}
    await pool.execute(
        "INSERT INTO early_cancellations (job_id, organization_id, event) VALUES (gen_random_uuid(), $1, $2)",
        *(organization_id, json.dumps(event)),
    )


async def _tables_with(pool: Pool, word: str) -> set[str]:
    """Name the tables of the pipeline in which any column of any row holds a word, as text or as bytes."""
    tables = [row[0] for row in await pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")]
    found = set()
    for table in set(tables) - _NOT_OURS:
        rows = f"SELECT EXISTS (SELECT FROM {table} AS t WHERE t::text LIKE ANY ($1::text[]))"
        if await pool.fetchval(rows, [f"%{word}%", f"%{word.encode().hex()}%"]):
            found.add(table)
    return found


async def test_no_table_keeps_an_erased_organizations_word(
    erase: Run, pipeline: Pipeline, database: Pool, database_url: str
) -> None:
    """All texts of one organization are gone, the other's stay, live jobs are cancelled, and the books hold."""
    live = await _with_texts(pipeline, database, "acme")
    await _with_texts(pipeline, database, "birch")
    assert await _tables_with(database, "secret-acme") == await _tables_with(database, "secret-birch")
    assert len(await _tables_with(database, "secret-birch")) == 9
    charged = (await usage(database))[1]

    said = await erase("--organization", "acme", "--yes", "--json")
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["live"] == [str(live.job_id)]
    assert await _tables_with(database, "secret-acme") == set()
    assert len(await _tables_with(database, "secret-birch")) == 9
    digests = "SELECT count(*) FROM job_owners WHERE organization_id = $1 AND wish IS NOT NULL"
    assert await database.fetchval(digests, "acme") == 0
    assert (await usage(database))[1] == charged
    outcome = await database.fetchval("SELECT outcome FROM job_outcomes WHERE job_id = $1", live.job_id)
    assert outcome == "cancelled"
    assert await database.fetchval("SELECT state FROM failed_events WHERE organization_id = 'acme'") == "discarded"
    await assert_consistent(database_url, settled=False)

    before = await database.fetch("SELECT t::text FROM job_events AS t ORDER BY sequence")
    assert (await erase("--organization", "acme", "--yes")).exit_code == 0
    assert await database.fetch("SELECT t::text FROM job_events AS t ORDER BY sequence") == before


async def test_the_api_erases_as_the_command_does(
    pipeline: Pipeline, database: Pool, database_url: str, redis_url: str
) -> None:
    """It says first how much there is; then no table keeps a word, the log has it, and a repeat is harmless."""
    live = await _with_texts(pipeline, database, "acme")
    await _with_texts(pipeline, database, "birch")
    whose = {"organization_id": "acme"}
    counts = {"jobs": 3, "events": 5, "activities": 3, "failed_events": 1, "cancellations": 1, "live": 1}
    async with serving(api_settings(database_url=database_url, broker_url=redis_url)) as api:
        api.headers.update(bearer("ops", "operator"))
        for path, erased in (("/effects", False), ("", True)):
            async with api.post(f"/api/ops/organizations/erase{path}", json=whose) as answer:
                so_far = {"total": 4, "left": 0, "next": None} if erased else {}
                assert (answer.status, await answer.json()) == (200, {"organization_id": "acme", **counts, **so_far})
            assert (await _tables_with(database, "secret-acme") == set()) is erased
        for after in (None, str(live.job_id)):
            async with api.post("/api/ops/organizations/erase", json={**whose, "after": after}) as answer:
                assert (answer.status, (await answer.json())["live"]) == (200, 0)
        for path in ("/effects", ""):
            async with api.post(f"/api/ops/organizations/erase{path}", json={"organization_id": "nowhere"}) as answer:
                assert (answer.status, (await answer.json())["code"]) == (404, "organization_not_found")
    assert len(await _tables_with(database, "secret-birch")) == 9
    outcome = await database.fetchval("SELECT outcome FROM job_outcomes WHERE job_id = $1", live.job_id)
    assert outcome == "cancelled"
    log = await database.fetch("SELECT action, target, face, effects FROM operator_actions ORDER BY at")
    assert [(one["action"], one["target"], one["face"]) for one in log] == [("erase", "organization acme", "api")] * 3
    done = {name: number for name, number in counts.items() if name != "live"}
    assert json.loads(log[0]["effects"]) == {**done, "cancelled": 1}
    await assert_consistent(database_url, settled=False)


async def test_an_erasure_asks_first(erase: Run, pipeline: Pipeline, database: Pool) -> None:
    """It says how much there is; with a no, or for an organization without a job, nothing changes."""
    await _with_texts(pipeline, database, "acme")
    said = await erase("--organization", "acme", answer="n\n")
    assert said.exit_code == 1
    assert "acme: 3 jobs, 3 activities, 5 events, 1 failed events, 1 early cancellations; 1 jobs have" in said.output
    assert len(await _tables_with(database, "secret-acme")) == 9
    said = await erase("--organization", "nowhere", "--yes")
    assert said.exit_code == 1
    assert said.stderr.startswith("teamfit: organization nowhere: not known, and neither is a job")
    assert said.stdout == ""


@pytest.mark.usefixtures("pipeline")
async def test_an_organization_without_a_job_has_nothing_to_erase(erase: Run) -> None:
    """It is known, so that is no mistake; nothing is asked."""
    said = await erase("--organization", "acme")
    assert (said.exit_code, "There is nothing to erase." in said.stdout) == (0, True), said.output
    assert json.loads((await erase("--organization", "acme", "--json")).stdout)["jobs"] == 0


@pytest.mark.usefixtures("pipeline")
async def test_an_organization_that_has_only_withdrawn_is_erased(erase: Run, database: Pool) -> None:
    """Its cancellations came before any request of its, and hold its words as well; the row goes on cancelling."""
    await withdraw_early(database, "acme", "secret-acme")
    said = await erase("--organization", "acme", "--yes", "--json")
    assert (said.exit_code, json.loads(said.stdout)["cancellations"]) == (0, 1), said.output
    assert await _tables_with(database, "secret-acme") == set()
    kept = await database.fetchval("SELECT event #>> '{data,reason}' FROM early_cancellations")
    assert kept == "[erased]"


_MANY = Amounts(jobs=1_200, organizations=1, failed_events=300, events_of_one_job=10, actions=1, scheduled=10)
_WORDS = ("session", "quiet relay", "would not", "outdoors")


async def _left_of(pool: Pool) -> dict[str, set[str]]:
    return {word: await _tables_with(pool, word) for word in _WORDS}


async def test_many_jobs_are_erased_step_by_step(database: Pool, database_url: str, redis_url: str) -> None:
    """The first cancels all that is live, each goes on where the one before stopped; then no table has a word."""
    await fill(database_url, _MANY)
    assert all((await _left_of(database)).values())
    books, steps = Database(database_url, size=3), list[Erased]()
    broker = Broker(api_settings(database_url=database_url, broker_url=redis_url), name="test")
    cancellation, told = Cancellation(books, broker, books.clock), list[int]()
    try:
        while not steps or steps[-1].next is not None:
            texts = await find_texts(books, "org-0")
            steps.append(
                await erase_texts(
                    *(books, cancellation, texts),
                    operator="ann",
                    after=steps[-1].next if steps else None,
                    at_most=timedelta(microseconds=1),
                    report=lambda progress: told.append(progress.left),
                )
            )
            assert not (await find_texts(books, "org-0")).live
    finally:
        await broker.close()
        await books.close()
    assert [(one.total, one.left) for one in steps] == [(1_200, 1_200), (1_200, 700), (1_200, 200), (1_200, 0)]
    assert told == [1_200, 1_200, 700, 700, 200, 200, 0]
    assert await _left_of(database) == {word: set() for word in _WORDS}
    assert await database.fetchval("SELECT count(*) FROM webhook_deliveries") == 0
    facts = [json.loads(fields[b"event"])["subject"] for fields in await entries_of(redis_url, "job-events")]
    assert sorted(facts) == sorted(map(str, await _live(database)))
    assert len(facts) >= _MANY.jobs * 5 // 1_000


async def _live(pool: Pool) -> set[UUID]:
    """Return the jobs that had not ended before."""
    rows = await pool.fetch("SELECT job_id FROM job_outcomes WHERE fact ->> 'type' = 'teamfit.job.cancelled.v1'")
    return {row["job_id"] for row in rows}


async def test_whoever_erases_may_be_killed(erase: Run, database: Pool, database_url: str, redis_url: str) -> None:
    """The same command goes on: no table has a word, and each live job is told as cancelled once."""
    await fill(database_url, _MANY)
    command = [sys.executable, "-m", "infra.cli", "erase", "--organization", "org-0", "--yes"]
    killed = await asyncio.create_subprocess_exec(*command, env=dict(os.environ))

    async def begun() -> bool:
        return bool(await database.fetchval("SELECT count(*) FROM customization_jobs WHERE requirements = '[erased]'"))

    try:
        await wait_for(begun, deadline_s=60, what="the first jobs to be erased")
    finally:
        killed.send_signal(signal.SIGKILL)
        await killed.wait()
    said = await erase("--organization", "org-0", "--yes")
    assert said.exit_code == 0, said.output
    assert await _left_of(database) == {word: set() for word in _WORDS}
    facts = [json.loads(fields[b"event"])["subject"] for fields in await entries_of(redis_url, "job-events")]
    assert len(facts) == len(set(facts)) <= len(await _live(database))
