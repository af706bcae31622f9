"""The projection on a real Postgres: the archive, the read model, and two workers at once."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumers.projection.fold import JobState, fold_all
from consumers.projection.handlers import Projection, _state, project
from infra.postgres import Database
from streams.jobs.events import JobEvent, JobId, parse_event
from tests.conftest import Pool
from tests.facts import ENDS, JOB, at, completed, progressed, requested, started
from tests.waiting import wait_for

READ_MODEL = """
SELECT job_id, organization_id, team_id, requirements, run, status, error_code, error_message,
    created_at, started_at, completed_at
FROM customization_jobs ORDER BY job_id
"""


@pytest.fixture
async def projection(database_url: str) -> AsyncIterator[Projection]:
    """A projection on the test's own database."""
    opened = Database(database_url, size=4)
    yield Projection(opened)
    await opened.close()


async def states(database: Pool) -> list[JobState]:
    """Return the read model."""
    return [_state(row) for row in await database.fetch(READ_MODEL)]


async def refolded(database: Pool) -> list[JobState]:
    """Return what folding the archive again gives."""
    jobs: dict[JobId, list[JobEvent]] = {}
    for row in await database.fetch("SELECT job_id, event::text FROM job_events ORDER BY job_id, sequence"):
        jobs.setdefault(JobId(row["job_id"]), []).append(parse_event(row["event"].encode()))
    return [fold_all(JobState(job), events) for job, events in jobs.items()]


async def test_events_are_archived_and_folded(projection: Projection, database: Pool) -> None:
    """A batch with a whole life of a job leaves its events in the archive, in order, and its row completed."""
    story: list[JobEvent] = [requested(0), started(1), progressed(2), completed(3)]
    assert await projection.project(story) == [(), (), (), ()]
    assert await states(database) == [fold_all(JobState(JOB), story)]
    archived = await database.fetch("SELECT event_id, type, organization_id FROM job_events ORDER BY sequence")
    assert [row["event_id"] for row in archived] == [event.id for event in story]
    assert {row["organization_id"] for row in archived} == {"acme"}


async def test_repeating_a_batch_changes_nothing(projection: Projection, database: Pool) -> None:
    """A batch that is handed over again, alone or mixed with new events, is neither archived nor folded twice."""
    await projection.project([requested(0), started(1)])
    before = await database.fetch("SELECT * FROM customization_jobs")
    await projection.project([requested(0), started(1), started(1)])
    assert await database.fetch("SELECT * FROM customization_jobs") == before
    await projection.project([started(1), completed(3), requested(0), completed(3)])
    assert await database.fetchval("SELECT count(*) FROM job_events") == 3
    assert [state.status for state in await states(database)] == ["completed"]


async def test_the_first_event_of_an_id_wins(projection: Projection, database: Pool) -> None:
    """Two different events under one ID are one event: what was archived first stands, within a batch too."""
    await projection.project([requested(0, team="first"), requested(0, team="second")])
    await projection.project([requested(0, team="third")])
    assert await database.fetchval("SELECT event->'data'->>'team_id' FROM job_events") == "first"
    assert [state.team_id for state in await states(database)] == ["first"]


async def test_an_event_id_is_unique_within_its_job_only(projection: Projection, database: Pool) -> None:
    """Upstream services number their events as they like, so another job may use the same ID."""
    other = JobId(uuid4())
    await projection.project([requested(0), requested(0, job=other)])
    assert {state.job_id for state in await states(database)} == {JOB, other}


async def test_another_organization_cannot_take_a_job_over(projection: Projection, database: Pool) -> None:
    """Its events are kept in the archive, where an operator can find them, and change nothing in the read model."""
    await projection.project([requested(0), completed(3)])
    before = await states(database)
    await projection.project([requested(5, run=2, organization="rival"), started(6, run=2, organization="rival")])
    assert await states(database) == before
    assert await database.fetchval("SELECT count(*) FROM job_events WHERE organization_id = 'rival'") == 2


async def test_a_lost_read_model_is_not_filled_with_empty_rows(projection: Projection, database: Pool) -> None:
    """Events that the archive has already do not conjure up a job without facts."""
    await projection.project([requested(0)])
    await database.execute("DELETE FROM customization_jobs")
    await projection.project([requested(0)])
    assert await states(database) == []


async def test_a_row_of_the_celery_days_is_not_moved_back(projection: Projection, database: Pool) -> None:
    """An old job that Celery completed stays so, whatever late event of its run comes; a replay starts it over."""
    await database.execute(
        "INSERT INTO customization_jobs (job_id, organization_id, status, created_at)"
        " VALUES ($1, 'acme', 'SUCCESS', $2)",
        JOB,
        at(0),
    )
    await projection.project([started(1)])
    assert await database.fetchval("SELECT lower(status) FROM customization_jobs") in {"success", "completed"}
    await projection.project([requested(9, run=2)])
    assert [(state.run, state.status) for state in await states(database)] == [(2, "pending")]


def stories(jobs: int, rng: random.Random) -> list[JobEvent]:
    """Return the events of some jobs, in an order that no stage would choose, some of them twice."""
    events: list[JobEvent] = []
    for _ in range(jobs):
        job = JobId(uuid4())
        end = rng.choice(ENDS)
        events += (requested(0, job=job), started(1, job=job), progressed(2, job=job))
        events.append(end(3, job=job))
    events += rng.choices(events, k=jobs)
    rng.shuffle(events)
    return events


def batches(events: Sequence[JobEvent], size: int) -> list[Sequence[JobEvent]]:
    """Cut the events into batches."""
    return [events[start : start + size] for start in range(0, len(events), size)]


async def test_workers_side_by_side_agree_and_do_not_deadlock(
    projection: Projection, database: Pool, database_url: str
) -> None:
    """Two workers that are handed the same events in different orders leave each once, and the same rows."""
    rng = random.Random(7)
    events = stories(60, rng)
    again = rng.sample(events, k=len(events))
    second = Database(database_url, size=4)

    async def work(worker: Projection, share: Sequence[JobEvent]) -> None:
        for batch in batches(share, 25):
            await worker.project(batch)

    # A deadlock would surface as DependencyDown, which a stage holds on and tries again; here nobody tries again.
    await asyncio.gather(
        work(projection, events),
        work(Projection(second), again),
        work(projection, again),
        work(Projection(second), events),
    )
    await second.close()
    assert await database.fetchval("SELECT count(*) FROM job_events") == 240
    model = await states(database)
    assert len(model) == 60
    assert all(state.status in {"completed", "failed", "cancelled"} for state in model)
    assert model == await refolded(database)


async def test_conflicting_events_fold_in_the_order_of_the_archive(
    projection: Projection, database: Pool, database_url: str
) -> None:
    """Where the order does decide, as with two organizations' claims to a job, live folding and a rebuild agree."""
    second = Database(database_url, size=4)
    rivals = []
    for _ in range(40):
        job = JobId(uuid4())
        rivals.append((requested(0, job=job), requested(0, job=job, run=2, organization="rival", team="other")))
    await asyncio.gather(
        *(projection.project([ours]) for ours, _ in rivals),
        *(Projection(second).project([theirs]) for _, theirs in rivals),
    )
    await second.close()
    assert await states(database) == await refolded(database)


async def test_whoever_waits_for_a_new_row_holds_no_other(
    projection: Projection, database: Pool, database_url: str
) -> None:
    """Else two that make and lock the same rows could wait in a ring. The row is seen by the next try, and folded."""
    known, new = sorted(JobId(uuid4()) for _ in range(2))
    await projection.project([requested(0, job=known)])
    second = Database(database_url, size=2)
    async with second.transaction() as connection:
        await project(connection, [requested(0, job=new)])
        running = asyncio.create_task(projection.project([started(1, job=known), started(1, job=new)]))

        async def waits() -> bool:
            statement = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return bool(await database.fetchval(statement))

        await wait_for(waits, what="the second worker to wait for the row")
        await database.execute("SELECT 1 FROM customization_jobs WHERE job_id = $1 FOR UPDATE NOWAIT", known)
    await running
    await second.close()
    assert [state.status for state in await states(database)] == ["processing", "processing"]
    assert await states(database) == await refolded(database)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), size=st.integers(1, 40))
async def test_any_batching_gives_the_fold_of_the_archive(
    projection: Projection, database: Pool, seed: int, size: int
) -> None:
    """However deliveries are shuffled, repeated and cut into batches, the read model is the fold of the archive."""
    await database.execute("TRUNCATE customization_jobs, job_events")
    events = stories(5, random.Random(seed))
    for batch in batches(events, size):
        await projection.project(batch)
    model = await states(database)
    assert len(model) == 5
    assert model == await refolded(database)


async def test_a_batch_takes_a_constant_number_of_statements(projection: Projection, database: Pool) -> None:
    """Two hundred events cost as many statements as four."""
    counts = []
    for size in (1, 1, 50):  # the first one also asks Postgres about its types
        batch = stories(size, random.Random(size))
        before = await database.fetchval("SELECT count(*) FROM job_events")
        async with projection.database.transaction() as connection:
            sent: list[str] = []
            with connection.query_logger(lambda query, sent=sent: sent.append(query.query)):
                await project(connection, batch)
        counts.append(len(sent))
        assert await database.fetchval("SELECT count(*) FROM job_events") == before + 4 * size
    assert counts[1:] == [3, 3]
