"""Rebuilding the read model on a real Postgres: what is repaired, what is kept, and what happens meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import asyncpg
import pytest

from consumers.projection import rebuild as module
from consumers.projection.handlers import Projection, project
from consumers.projection.rebuild import Rebuilt, rebuild
from consumers.projection.refold import COLUMNS, Folded, Session, fold_archive
from infra.errors import DependencyDown
from infra.postgres import Database
from streams.jobs.events import JobEvent, JobId
from tests.conftest import Pool
from tests.facts import ENDS, JOB, at, completed, progressed, requested, started
from tests.waiting import wait_for

_ROWS = f"SELECT {', '.join(COLUMNS)} FROM customization_jobs ORDER BY job_id"


@pytest.fixture
async def projection(database_url: str) -> AsyncIterator[Projection]:
    """A projection on the test's own database."""
    opened = Database(database_url, size=4)
    yield Projection(opened)
    await opened.close()


@pytest.fixture
async def session(database_url: str) -> AsyncIterator[Session]:
    """The connection of an operator's command."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


def story(job: JobId, rng: random.Random) -> list[JobEvent]:
    """Return the life of a job; some are replayed."""
    events: list[JobEvent] = []
    for run in range(1, rng.choice((2, 2, 3))):
        end = rng.choice(ENDS)
        events += [
            requested(0, job=job, run=run),
            started(1, job=job, run=run),
            progressed(2, job=job, run=run),
            end(3, job=job, run=run),
        ]
    return events


async def tell(projection: Projection, jobs: int, *, seed: int = 1) -> list[JobId]:
    """Project the lives of some jobs; return their IDs in order."""
    rng = random.Random(seed)
    ids = sorted(JobId(uuid4()) for _ in range(jobs))
    for job in ids:
        await projection.project(story(job, rng))
    return ids


async def rows(database: Pool) -> Sequence[asyncpg.Record]:
    """Return the read model."""
    return await database.fetch(_ROWS)


async def folds(session: Session, page: int) -> list[Folded]:
    """Fold the archive by pages of a size."""
    return [job async for one in fold_archive(session, page=page) for job in one.jobs]


async def test_the_size_of_a_page_does_not_matter(projection: Projection, session: Session, database: Pool) -> None:
    """However pages cut jobs apart, each job is folded once and whole, by ID, and is what the projection wrote."""
    ids = await tell(projection, 9)
    whole = await folds(session, 1000)
    assert [folded.state.job_id for folded in whole] == ids
    assert [tuple(row) for row in await rows(database)] == [
        tuple(getattr(folded.state, name) for name in COLUMNS) for folded in whole
    ]
    for page in (1, 2, 3, 5, 7):
        assert await folds(session, page) == whole


async def test_an_empty_archive_is_folded(session: Session) -> None:
    """There is nothing to do, and nothing is wrong."""
    rebuilt = await rebuild(session)
    assert rebuilt.agrees
    assert (rebuilt.events, rebuilt.repaired, rebuilt.before.jobs) == (0, 0, 0)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM customization_jobs",
        "TRUNCATE customization_jobs",
        "UPDATE customization_jobs SET status = 'processing', completed_at = NULL",
        "UPDATE customization_jobs SET organization_id = 'rival'",
        "UPDATE customization_jobs SET organization_id = NULL, requirements = NULL, team_id = 'other'",
        "UPDATE customization_jobs SET run = run + 1, status = 'pending'",
        "UPDATE customization_jobs SET status = 'failed', error_code = 'x', error_message = 'y'",
        "UPDATE customization_jobs SET created_at = now(), started_at = NULL",
        "UPDATE customization_jobs SET status = 'completed' WHERE job_id IN (SELECT job_id FROM job_events LIMIT 3)",
    ],
)
async def test_a_corrupted_read_model_is_repaired(
    projection: Projection, session: Session, database: Pool, damage: str
) -> None:
    """Whatever was done to the rows, they are again what the archive says, and the fingerprints show it."""
    await tell(projection, 12)
    before = await rows(database)
    await database.execute(damage)
    damaged = await rows(database)
    tried = await rebuild(session, dry_run=True)
    wrong = 12 - len({tuple(row) for row in damaged} & {tuple(row) for row in before})
    assert await rows(database) == damaged
    assert (tried.before.missing + tried.before.different, tried.repaired, tried.after) == (wrong, 0, None)
    if wrong:
        assert not tried.agrees
        assert tried.before.archive_fingerprint != tried.before.row_fingerprint
    rebuilt = await rebuild(session)
    assert await rows(database) == before
    assert rebuilt.repaired == wrong
    assert rebuilt.agrees
    after = rebuilt.after or rebuilt.before
    assert after.archive_fingerprint == after.row_fingerprint
    again = await rebuild(session)
    assert (again.agrees, again.repaired) == (True, 0)


async def test_the_report_names_jobs_and_columns(projection: Projection, session: Session, database: Pool) -> None:
    """An operator sees what differed before deciding anything."""
    first, second, *_ = await tell(projection, 3)
    await database.execute("DELETE FROM customization_jobs WHERE job_id = $1", first)
    await database.execute("UPDATE customization_jobs SET team_id = 'x', error_code = 'odd' WHERE job_id = $1", second)
    seen = (await rebuild(session, dry_run=True)).before
    assert (seen.jobs, seen.rows, seen.missing, seen.different) == (3, 2, 1, 1)
    assert list(seen.examples) == [f"{first} has no row", f"{second} team_id, error_code"]


async def test_rows_of_the_celery_days_survive(projection: Projection, session: Session, database: Pool) -> None:
    """They have no events, or only later ones; they are neither removed, nor moved back, nor given to somebody else."""
    silent, late, replayed, wanted = (JobId(uuid4()) for _ in range(4))
    for job in (silent, late, replayed, wanted):
        await database.execute(
            "INSERT INTO customization_jobs (job_id, organization_id, status, requirements, created_at) "
            "VALUES ($1, 'acme', 'SUCCESS', 'of old', '2020-01-01')",
            job,
        )
    await tell(projection, 3)
    await projection.project([started(1, job=late), requested(2, job=replayed, run=2)])
    await projection.project([requested(0, job=wanted, organization="rival"), completed(1, job=wanted)])
    before = await rows(database)
    await database.execute("DELETE FROM customization_jobs WHERE job_id <> ALL($1)", [silent, late, replayed, wanted])
    rebuilt = await rebuild(session)
    assert await rows(database) == before
    assert (rebuilt.agrees, rebuilt.repaired) == (True, 3)
    assert rebuilt.before.without_events == 1
    assert rebuilt.before.kept == 3


async def test_an_end_that_the_archive_misses_is_not_undone(
    projection: Projection, session: Session, database: Pool
) -> None:
    """A completed job whose fact is gone stays completed, since its outcome bears it out; the gap is reported."""
    await projection.project([requested(0), started(1), completed(3)])
    await database.execute("INSERT INTO job_outcomes (job_id, run, outcome) VALUES ($1, 1, 'completed')", JOB)
    await database.execute("DELETE FROM job_events WHERE type LIKE '%completed%'")
    before = await rows(database)
    rebuilt = await rebuild(session)
    assert await rows(database) == before
    assert not rebuilt.agrees
    assert list(rebuilt.before.gaps.examples) == [f"{JOB} run 1 is completed without its terminal fact"]
    await database.execute("DELETE FROM job_outcomes")
    assert (await rebuild(session)).repaired == 1
    assert await database.fetchval("SELECT status FROM customization_jobs") == "processing"


async def test_a_job_with_an_unreadable_event_is_left_alone(
    projection: Projection, session: Session, database: Pool
) -> None:
    """Nobody knows what it would become, so it is reported; the others are repaired."""
    first, second = await tell(projection, 2)
    await database.execute(
        "UPDATE job_events SET event = '{}' WHERE sequence = (SELECT min(sequence) FROM job_events WHERE job_id = $1)",
        first,
    )
    await database.execute("UPDATE customization_jobs SET team_id = 'x'")
    rebuilt = await rebuild(session)
    assert (rebuilt.agrees, rebuilt.repaired, rebuilt.before.unreadable_jobs) == (False, 1, 1)
    assert rebuilt.before.unreadable[0].startswith(f"{first} event ")
    teams = {row["job_id"]: row["team_id"] for row in await rows(database)}
    assert teams == {first: "x", second: "t1"}


async def test_an_event_that_commits_while_the_rebuild_waits_is_not_lost(
    projection: Projection, session: Session, database: Pool
) -> None:
    """The rebuild folded without it; it waits for the row, and then folds it too."""
    await projection.project([requested(0), started(1)])
    await database.execute("UPDATE customization_jobs SET team_id = 'x'")
    async with projection.database.transaction() as connection:
        await project(connection, [completed(3)])
        running = asyncio.create_task(rebuild(session))

        async def waits() -> bool:
            waiting: int = await database.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return waiting == 1

        await wait_for(waits, what="the rebuild to wait for the row")
    rebuilt = await running
    assert rebuilt.agrees
    row = dict((await rows(database))[0])
    assert (row["status"], row["team_id"], row["completed_at"]) == ("completed", "t1", at(3))


async def test_a_row_that_stays_locked_ends_the_rebuild_with_nothing_changed(
    projection: Projection, session: Session, database: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to look for, and another try works."""
    await tell(projection, 2)
    await database.execute("UPDATE customization_jobs SET team_id = 'x'")
    damaged = await rows(database)
    monkeypatch.setattr(module, "_LOCK_TIMEOUT", "SET LOCAL lock_timeout = '100ms'")
    async with database.acquire() as holder, holder.transaction():
        await holder.execute("SELECT 1 FROM customization_jobs FOR UPDATE")
        with pytest.raises(DependencyDown, match="hanging transaction"):
            await rebuild(session)
        assert await rows(database) == damaged
    assert (await rebuild(session)).repaired == 2


async def test_rebuilds_beside_working_projections_lose_nothing(
    projection: Projection, session: Session, database: Pool, database_url: str
) -> None:
    """Workers archive, rows are damaged and removed, rebuilds run: in the end the rows are the fold of the archive.

    The projections' connections were used before and are used after a rebuild, so the statements that they keep
    prepared must still hold. A deadlock would surface as DependencyDown.
    """
    rng = random.Random(3)
    jobs = [JobId(uuid4()) for _ in range(150)]
    events = [event for job in jobs for event in story(job, rng)]
    rng.shuffle(events)
    await projection.project(events[:40])
    second = Projection(Database(database_url, size=2))
    done = asyncio.Event()

    async def work(worker: Projection, share: Sequence[JobEvent]) -> None:
        for start in range(0, len(share), 4):
            await worker.project(share[start : start + 4])

    async def vandalize() -> int:
        times = 0
        while not done.is_set():
            await database.execute(
                "UPDATE customization_jobs SET team_id = 'x', status = 'pending' WHERE job_id IN "
                "(SELECT job_id FROM customization_jobs ORDER BY random() LIMIT 5 FOR UPDATE SKIP LOCKED)"
            )
            await database.execute(
                "DELETE FROM customization_jobs WHERE job_id IN "
                "(SELECT job_id FROM customization_jobs ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED)"
            )
            times += 1
            await asyncio.sleep(0.005)
        return times

    async def rebuild_again_and_again() -> list[Rebuilt]:
        rebuilds = []
        while not done.is_set():
            rebuilds.append(await rebuild(session))
        return rebuilds

    vandal, operator = asyncio.create_task(vandalize()), asyncio.create_task(rebuild_again_and_again())
    await asyncio.gather(work(projection, events[::2]), work(second, events[1::2]))
    done.set()
    assert await vandal > 3
    rebuilds = await operator
    await second.database.close()
    assert sum(one.repaired for one in rebuilds) > 0
    last = await rebuild(session)
    assert last.agrees, last
    assert await database.fetchval("SELECT count(*) FROM job_events") == len(events)
    folded = await folds(session, 100)
    assert [tuple(row) for row in await rows(database)] == [
        tuple(getattr(job.state, name) for name in COLUMNS) for job in folded
    ]
    assert len(folded) == len(jobs)


async def test_a_rebuild_tells_how_far_it_is(projection: Projection, session: Session, database: Pool) -> None:
    """Each step is announced; folding ends at all events of the archive."""
    await tell(projection, 5)
    await database.execute("DELETE FROM customization_jobs")
    told: list[tuple[str, int, int]] = []
    rebuilt = await rebuild(session, progress=lambda step, done, total: told.append((step, done, total)))
    assert list(dict.fromkeys(step for step, _, _ in told)) == ["fold", "examine", "repair"]
    assert ("fold", rebuilt.events, rebuilt.events) in told
