"""What the schedule does by the calendar: quota periods and the retention of the archive."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from faust.app.base import App

from consumers.projection.handlers import Projection
from infra.postgres import Database
from infra.settings import Settings
from producers.schedule.periods import Periods
from producers.schedule.retention import Retention
from producers.schedule.worker import create
from streams.jobs.events import JobEvent, JobId
from tests.conftest import Pool
from tests.integration.pipeline_scene import pipeline_on
from tests.integration.pipeline_world import MovingClock, asked
from tests.integration.quota_scene import ManualClock, add_organization, completed, failed
from tests.verified import assert_consistent

MIDNIGHT = datetime(2031, 5, 1, tzinfo=UTC)


async def counters(pool: Pool) -> dict[tuple[str, str], tuple[int, int]]:
    """The counters, by organization and period."""
    rows = await pool.fetch("SELECT organization_id, period, reserved, charged FROM quota_usage")
    return {(row[0], row[1]): (row[2], row[3]) for row in rows}


async def test_a_period_is_opened_once_whoever_and_however_often(postgres: Database, database: Pool) -> None:
    """Two leaders at midnight, and a catch-up hours later when units are taken: one row, and nothing is reset again."""
    await add_organization(database, "acme")
    await add_organization(database, "birch")
    await add_organization(database, "unsubscribed", plan=None)
    await database.execute("INSERT INTO quota_usage VALUES ('acme', '2031-04', 0, 50)")
    clock = ManualClock(MIDNIGHT)
    opened = await asyncio.gather(*(Periods(postgres, clock).open_current() for _ in range(6)))
    assert sum(opened) == 2
    await database.execute("UPDATE quota_usage SET reserved = 1, charged = 2 WHERE period = '2031-05'")
    clock.time += timedelta(hours=3)
    assert await Periods(postgres, clock).open_current() == 0
    assert await counters(database) == {
        ("acme", "2031-04"): (0, 50),
        ("acme", "2031-05"): (1, 2),
        ("birch", "2031-05"): (1, 2),
    }


async def test_a_period_follows_utc(postgres: Database, database: Pool) -> None:
    """A second before midnight, UTC, it is still last month's."""
    await add_organization(database)
    await Periods(postgres, ManualClock(MIDNIGHT - timedelta(seconds=1))).open_current()
    assert list(await counters(database)) == [("acme", "2031-04")]


async def add_job(postgres: Database, *events: JobEvent) -> JobId:
    """Archive and fold a job's events."""
    await Projection(postgres).project(events)
    return events[0].job_id


async def archived_jobs(pool: Pool) -> set[JobId]:
    """The jobs that have events in the archive."""
    return {row[0] for row in await pool.fetch("SELECT DISTINCT job_id FROM job_events")}


async def age(pool: Pool, job_id: JobId, days: int) -> None:
    """Have a job's story end that long ago."""
    ago = timedelta(days=days)
    await pool.execute("UPDATE job_events SET archived_at = now() - $2::interval WHERE job_id = $1", job_id, ago)
    await pool.execute(
        "UPDATE customization_jobs SET updated_at = now() - $2::interval, "
        "completed_at = CASE WHEN completed_at IS NOT NULL THEN now() - $2::interval END WHERE job_id = $1",
        *(job_id, ago),
    )


async def test_a_clock_far_ahead_deletes_nothing(postgres: Database, database: Pool) -> None:
    """Whoever was told a time two years ahead does not take the whole archive for old."""
    event = asked()
    await add_job(postgres, event, completed(event))
    assert await Retention(postgres, MovingClock(timedelta(days=730)), keep=timedelta(days=400)).delete_old() == 0
    assert await archived_jobs(database) == {event.job_id}


@pytest.mark.parametrize("page_size", [1, 3, 1_000])
async def test_only_old_events_of_ended_jobs_are_deleted(postgres: Database, database: Pool, page_size: int) -> None:
    """What is live, recent or holds quota stays whole; the read model keeps every job; the horizon is remembered."""
    ended, live, recent, held, other = (asked() for _ in range(5))
    await add_job(postgres, ended, completed(ended))
    await add_job(postgres, live)
    await add_job(postgres, held, completed(held))
    await add_job(postgres, other, failed(other))
    for event in (ended, live, held, other):
        await age(database, event.job_id, 401)
    await add_job(postgres, recent, completed(recent))
    await age(database, recent.job_id, 399)
    await database.execute(
        "INSERT INTO quota_ledger (job_id, run, organization_id, period, state, decided_at) "
        "VALUES ($1, 1, 'acme', '2031-04', 'reserved', now())",
        held.job_id,
    )
    retention = Retention(postgres, MovingClock(), keep=timedelta(days=400), page_size=page_size)
    assert await retention.delete_old() == 4
    assert await archived_jobs(database) == {live.job_id, recent.job_id, held.job_id}
    assert await database.fetchval("SELECT count(*) FROM customization_jobs") == 5
    kept = await database.fetchrow(
        "SELECT now() - horizon BETWEEN '400 days' AND '401 days', deleted_events FROM archive_retention"
    )
    assert kept is not None
    assert tuple(kept) == (True, 4)
    assert await retention.delete_old() == 0


async def test_an_archive_without_old_events_is_left_as_it_is(postgres: Database, database: Pool) -> None:
    """Nothing is deleted, and no horizon is claimed."""
    event = asked()
    await add_job(postgres, event, completed(event))
    retention = Retention(postgres, MovingClock(), keep=timedelta(days=400))
    assert await retention.delete_old() == 0
    assert await database.fetchval("SELECT count(*) FROM archive_retention") == 0


async def _age_everything(pool: Pool, days: int) -> None:
    """Move all that has happened so far into the past, counters included."""
    for table, column in (
        ("job_events", "archived_at"),
        ("job_outcomes", "decided_at"),
        ("quota_ledger", "decided_at"),
        ("generation_attempts", "started_at"),
        ("customization_jobs", "completed_at"),
        ("customization_jobs", "updated_at"),
        ("failed_events", "last_failed_at"),
        ("failed_events", "discarded_at"),
        ("replay_plans", "created_at"),
    ):
        # Facts carry times of their own, so what is moved is not when they say that they happened, but now.
        await pool.execute(
            f"UPDATE {table} SET {column} = now() - $1::interval WHERE {column} IS NOT NULL", timedelta(days=days)
        )
    await pool.execute("UPDATE quota_ledger SET period = to_char(decided_at AT TIME ZONE 'UTC', 'YYYY-MM')")
    await pool.execute(
        "UPDATE quota_usage SET period = to_char(now() AT TIME ZONE 'UTC' - $1::interval, 'YYYY-MM')",
        timedelta(days=days),
    )
    await pool.execute(
        "UPDATE llm_usage SET period = to_char(now() AT TIME ZONE 'UTC' - $1::interval, 'YYYY-MM')",
        timedelta(days=days),
    )


async def _jobs_by_table(pool: Pool) -> dict[str, set[JobId]]:
    tables = (
        *("customization_jobs", "job_requests", "job_outcomes", "quota_ledger", "generation_attempts"),
        *("customized_activities", "job_events"),
    )
    return {table: {row[0] for row in await pool.fetch(f"SELECT job_id FROM {table}")} for table in tables}


@pytest.mark.parametrize("page_size", [1, 1_000])
async def test_whole_jobs_go_when_their_retention_has_passed(
    postgres: Database, database: Pool, database_url: str, page_size: int
) -> None:
    """Nothing about an old ended job stays in any table; live and recent jobs stay whole; the books hold."""
    await add_organization(database, "acme", monthly_quota=10)
    async with pipeline_on(database_url) as pipeline:
        pipeline.clock.time = datetime.now(UTC)
        old, live = await pipeline.complete(), await pipeline.accept()
        await _age_everything(database, 200)
        recent = await pipeline.complete()
    retention = Retention(
        postgres, MovingClock(), keep=timedelta(days=400), keep_jobs=timedelta(days=100), page_size=page_size
    )
    before = await _jobs_by_table(database)
    assert await retention.delete_jobs() == 1
    after = await _jobs_by_table(database)
    assert {table: before[table] - after[table] for table in before} == {table: {old.job_id} for table in before}
    assert {live.job_id, recent.job_id} <= after["quota_ledger"]
    assert sum(row[1] for row in (await counters(database)).values()) == 2  # charges outlive their jobs
    assert await retention.delete_jobs() == 0
    report = await assert_consistent(database_url, settled=False)
    assert report.ok


async def test_jobs_are_kept_for_ever_unless_told_otherwise(postgres: Database, database: Pool) -> None:
    """Without a retention of its own, a job of a thousand days ago stays."""
    event = asked()
    await add_job(postgres, event, completed(event))
    await age(database, event.job_id, 1_000)
    assert await Retention(postgres, MovingClock(), keep=timedelta(days=400)).delete_jobs() == 0
    assert await database.fetchval("SELECT count(*) FROM customization_jobs") == 1


async def test_failed_events_go_when_they_were_dealt_with_long_ago(postgres: Database, database: Pool) -> None:
    """A discarded one and its ended plan go; open ones stay, however old, and those of a plan that is being applied."""
    for name, discarded in (("discarded", True), ("open", False), ("planned", True)):
        await database.execute(
            "INSERT INTO failed_events (id, topic, stage, reason, error_type, error_message, attempts, first_failed_at,"
            " last_failed_at, discarded_at, discarded_occurrences, event_id) VALUES (gen_random_uuid(), 'job-accepted',"
            " 'generation', 'given_up', 'E', 'no', 1, now(), now(), $1, $2, $3)",
            *(datetime.now(UTC) if discarded else None, 1 if discarded else None, name),
        )
    for state, event in (("finished", "discarded"), ("applying", "planned")):
        plan = await database.fetchval(
            "INSERT INTO replay_plans (id, state, filters, created_by, created_at)"
            " VALUES (gen_random_uuid(), $1, '{}', 'test', now()) RETURNING id",
            state,
        )
        await database.execute(
            "INSERT INTO replay_plan_items (plan_id, position, failed_event_id, action, occurrences, last_failed_at,"
            " others_behind) SELECT $1, 1, id, 'resend', 1, now(), 0 FROM failed_events WHERE event_id = $2",
            *(plan, event),
        )
    await _age_everything(database, 401)
    retention = Retention(postgres, MovingClock(), keep=timedelta(days=400))
    assert await retention.delete_settled() == 2
    assert {row[0] for row in await database.fetch("SELECT event_id FROM failed_events")} == {"open", "planned"}
    assert [row[0] for row in await database.fetch("SELECT state FROM replay_plans")] == ["applying"]


async def test_hourly_figures_of_endpoints_go_after_their_time(postgres: Database, database: Pool) -> None:
    """The younger ones stay."""
    for name, days in (("old", 91), ("recent", 89)):
        await database.execute(
            "INSERT INTO llm_hours (endpoint, model, hour, calls, failed, refused, seconds, prompt_tokens,"
            " completion_tokens) VALUES ($1, 'm', now() - $2::interval, 1, 0, 0, 1, 1, 1)",
            *(name, timedelta(days=days)),
        )
    retention = Retention(postgres, MovingClock(), keep=timedelta(days=400), keep_hours=timedelta(days=90))
    assert await retention.delete_hours() == 1
    assert await database.fetchval("SELECT endpoint FROM llm_hours") == "recent"


async def test_old_cancellations_of_jobs_that_nobody_asked_for_go(postgres: Database, database: Pool) -> None:
    """One that still may meet its request stays, whosever it is."""
    for name, days in (("old", 401), ("recent", 399), ("new", 0)):
        await database.execute(
            "INSERT INTO early_cancellations (job_id, organization_id, event, received_at)"
            " VALUES (gen_random_uuid(), $1, '{}', now() - $2::interval)",
            *(name, timedelta(days=days)),
        )
    retention = Retention(postgres, MovingClock(), keep=timedelta(days=400))
    for _ in range(2):
        await retention.delete_settled()
        kept = await database.fetch("SELECT organization_id FROM early_cancellations")
        assert {row[0] for row in kept} == {"recent", "new"}


def test_the_crontabs_are_for_the_leader() -> None:
    """The schedule's app has its crontabs and timers, and takes part in the election of a leader."""
    app = create(Settings(_env_file=None))
    assert isinstance(app, App)
    assert not app.producer_only
    names = [task.__name__ for task in app._app_tasks]
    assert {"publish_due", "run_wanted", "open_period"} <= set(names)
    assert names.count("run") == 7, "each periodic task has its own"
