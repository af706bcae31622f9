"""Jobs are counted by time: whatever happens to them, the counts are those of the read model."""

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from consumers.projection.fold import CELERYS_WORDS, status_of
from consumers.projection.handlers import Projection
from infra.operations.history import Bar, read_history
from infra.postgres import Database
from producers.schedule.counts import Counts
from streams.jobs.events import JobEvent, JobId, JobRequested
from streams.jobs.facts import job_requested
from tests.conftest import Pool
from tests.integration.quota_scene import ManualClock, cancelled, completed, failed, request

NOW = datetime(2031, 4, 15, 12, 2, tzinfo=UTC)
_SHOWN = timedelta(days=99)
_ENDS: Mapping[str, Callable[[JobRequested], JobEvent]] = {
    "completed": completed,
    "failed": failed,
    "cancelled": cancelled,
}


@pytest.fixture
async def own(database_url: str) -> AsyncIterator[Database]:
    """A database of the test's own."""
    opened = Database(database_url, size=2)
    yield opened
    await opened.close()


def asked(job: JobId, at: datetime, *, run: int = 1, run_at: datetime | None = None) -> JobRequested:
    """A request at a time."""
    return job_requested(
        job_id=job, organization_id="acme", team_id="t", requirements="paper", at=at, run=run, run_at=run_at
    )


def ended(job: JobId, how: str, at: datetime, *, run: int = 1) -> JobEvent:
    """The end of a run at a time."""
    return _ENDS[how](request(job_id=job, run=run)).model_copy(update={"time": at})


async def totals(pool: Pool, now: datetime) -> dict[tuple[datetime, str], int]:
    """Return the counts by hour and state."""
    rows = await pool.fetch(
        "SELECT date_trunc('hour', at) AS hour, state, sum(jobs) AS jobs FROM job_counts GROUP BY 1, 2"
    )
    return {(row["hour"], row["state"]): row["jobs"] for row in rows}


async def of_the_read_model(pool: Pool, now: datetime) -> dict[tuple[datetime, str], int]:
    """Return what they should be."""
    rows = await pool.fetch(
        """
        SELECT date_trunc('hour', at) AS hour, state, count(*) AS jobs FROM (
            SELECT created_at AS at, 'asked' AS state FROM customization_jobs
            UNION ALL SELECT completed_at, status FROM customization_jobs WHERE completed_at IS NOT NULL
        ) AS one WHERE at >= $1 GROUP BY 1, 2
        """,
        (now - _SHOWN).replace(minute=0),
    )
    return {(row["hour"], row["state"]): row["jobs"] for row in rows}


_ago = st.one_of(st.integers(0, 300), st.integers(0, 4_000), st.integers(0, 130_000))  # minutes
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 3), _ago),
        st.tuples(st.sampled_from(["completed", "failed", "cancelled"]), st.integers(0, 3), _ago),
        st.tuples(st.just("rerun"), st.integers(0, 3), _ago),
        st.tuples(st.sampled_from(["count", "again"]), st.just(0), st.just(0)),
        st.tuples(st.just("hours pass"), st.integers(1, 60), st.just(0)),
    ),
    max_size=14,
)


@example(steps=[("ask", 0, 10), ("count", 0, 0), ("ask", 0, 90), ("count", 0, 0)])  # an earlier request comes late
@example(steps=[("ask", 0, 9), ("failed", 0, 8), ("count", 0, 0), ("rerun", 0, 3), ("completed", 0, 1)])
@example(steps=[("ask", 0, 9), ("completed", 0, 8), ("count", 0, 0), ("hours pass", 60, 0), ("ask", 1, 3600)])
@given(steps=_steps)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_counts_are_those_of_the_read_model(
    own: Database, database: Pool, steps: list[tuple[str, int, int]]
) -> None:
    """In whatever order events come and looks are made, old times included, and however time passes between them."""
    await database.execute("TRUNCATE job_events, customization_jobs, job_counts, job_counts_progress, job_owners")
    clock = ManualClock(NOW)
    counts, projection = Counts(own, clock), Projection(own)
    jobs = [JobId(uuid4()) for _ in range(4)]
    runs = dict.fromkeys(jobs, 1)
    for what, number, ago in steps:
        at = clock.now() - timedelta(minutes=ago)
        if what == "hours pass":
            clock.time += timedelta(hours=number)
        elif what == "count":
            await counts.count()
        elif what == "again":
            await counts.count_again()
        elif what == "ask":
            await projection.project([asked(jobs[number], at)])
        elif what == "rerun":
            runs[jobs[number]] += 1
            await projection.project([asked(jobs[number], at, run=runs[jobs[number]])])
        else:
            await projection.project([ended(jobs[number], what, at, run=runs[jobs[number]])])
    await counts.count()
    now = clock.now()
    assert await totals(database, now) == await of_the_read_model(database, now)
    await counts.count_again()
    assert await totals(database, now) == await of_the_read_model(database, now)


async def test_history_outlives_the_jobs(own: Database, database: Pool) -> None:
    """Jobs that retention has deleted are on the chart as before; so are those whose events are gone."""
    clock = ManualClock(NOW)
    counts, projection = Counts(own, clock), Projection(own)
    for days in (1, 40, 80):
        at = NOW - timedelta(days=days)
        job = JobId(uuid4())
        await projection.project([asked(job, at), ended(job, "completed", at + timedelta(seconds=20))])
    await counts.count()
    async with own.transaction() as connection:
        before = (await read_history(connection, NOW)).days
    assert [bar.completed for bar in before if bar.completed] == [1, 1, 1]
    await database.execute("DELETE FROM customization_jobs WHERE created_at < $1", NOW - timedelta(days=30))
    await database.execute("DELETE FROM job_events")
    await database.execute("UPDATE archive_retention SET jobs_horizon = $1", NOW - timedelta(days=30))
    await counts.count_again()
    await counts.count()
    async with own.transaction() as connection:
        assert (await read_history(connection, NOW)).days == before


async def test_periods_say_how_many_and_how_long(own: Database) -> None:
    """Percentiles within a tenth; a job that was to wait, and one that was replayed, count and have no time."""
    clock = ManualClock(NOW)
    counts, projection = Counts(own, clock), Projection(own)
    events: list[JobEvent] = []
    for seconds in range(1, 101):
        job, at = JobId(uuid4()), NOW - timedelta(minutes=30)
        events += [asked(job, at), ended(job, "completed", at + timedelta(seconds=seconds))]
    waits, replayed = JobId(uuid4()), JobId(uuid4())
    yesterday = NOW - timedelta(hours=20)
    events += [
        asked(waits, yesterday, run_at=NOW - timedelta(minutes=40)),
        ended(waits, "completed", NOW - timedelta(minutes=39)),
        asked(replayed, yesterday),
        ended(replayed, "failed", yesterday + timedelta(seconds=5)),
        asked(replayed, NOW - timedelta(minutes=20), run=2),
        ended(replayed, "completed", NOW - timedelta(minutes=19), run=2),
    ]
    await projection.project(events)
    await counts.count()
    async with own.transaction() as connection:
        history = await read_history(connection, NOW)
    hour, day, month = history.periods
    assert (hour.asked, hour.completed, hour.failed) == (100, 102, 0)
    assert (day.asked, day.completed, day.failed) == (102, 102, 0)
    assert (month.asked, month.completed) == (102, 102)
    for period in history.periods:
        assert period.p50_s == pytest.approx(50, rel=0.1)
        assert period.p95_s == pytest.approx(95, rel=0.1)
    assert (len(history.day), len(history.days)) == (48, 90)
    assert sum(bar.completed for bar in history.day) == 102
    assert history.days[-1] == Bar(NOW.replace(hour=0, minute=0), asked=100, completed=102)
    assert hour.per_minute == pytest.approx(102 / 60, abs=0.01)


async def test_an_empty_database_has_an_empty_history(own: Database) -> None:
    """No job, and no error either; looking again and again counts nothing."""
    counts = Counts(own, ManualClock(NOW))
    for _ in range(7):
        assert await counts.count() <= 1
    async with own.transaction() as connection:
        history = await read_history(connection, NOW)
    assert [(one.asked, one.p50_s) for one in history.periods] == [(0, None)] * 3
    assert sum(bar.ended for bar in history.days) == 0


@pytest.mark.parametrize("said", sorted({*CELERYS_WORDS, *(word.upper() for word in CELERYS_WORDS)}))
async def test_rows_of_the_celery_days_count(own: Database, database: Pool, said: str) -> None:
    """By the word that a row has, read as the API reads it."""
    await database.execute(
        "INSERT INTO customization_jobs (job_id, organization_id, status, created_at, completed_at) "
        "VALUES (gen_random_uuid(), 'acme', $1, $2, $2)",
        *(said, NOW - timedelta(hours=1)),
    )
    await Counts(own, ManualClock(NOW)).count()
    meant = status_of(said)
    ends = {"completed", "failed", "cancelled"}
    counted = {row["state"]: row["jobs"] for row in await database.fetch("SELECT state, jobs FROM job_counts")}
    assert counted == {"asked": 1} | ({meant: 1} if meant in ends else {})


async def test_two_count_in_turns(own: Database, database: Pool) -> None:
    """One that finds another at it leaves the work to it."""
    async with database.acquire() as other, other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock(hashtext('teamfit.job_counts'))")
        assert await Counts(own, ManualClock(NOW)).count() == 0
    assert await database.fetchval("SELECT count(*) FROM job_counts_progress") == 0
    await Counts(own, ManualClock(NOW)).count()
    assert await database.fetchval("SELECT count(*) FROM job_counts_progress") == 1
