"""Each invariant, broken by hand: `verify` must see it, name the job, and say nothing of the others."""

import asyncio
import json
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from infra.clock import SystemClock
from infra.errors import Permanent
from infra.verify import CheckTimedOut, verify
from producers.schedule.retention import Retention
from streams.jobs.outcomes import fail_run
from tests.conftest import Pool
from tests.integration.pipeline_scene import Pipeline
from tests.integration.quota_scene import PERIOD, completed, request
from tests.integration.verify.conftest import Checker, Jobs, finding
from tests.verified import assert_consistent


async def violations(check: Checker, **options: object) -> dict[str, str]:
    """The broken invariants, each with its examples as one text."""
    report = await check(**options)
    return {one.name: "\n".join(one.examples) for one in report.violated}


async def test_a_pipeline_at_rest_is_consistent(jobs: Jobs, database_url: str) -> None:
    """Completed, failed and replayed, refused: nothing to complain about, and the counts say what was looked at."""
    report = await assert_consistent(database_url, llm_calls=3)
    assert finding(report, "accepted = terminal + live").detail == "4 accepted = 4 ended + 0 live + 0 lost"
    assert finding(report, "charged = completed").checked == 2
    assert finding(report, "three activities").checked == 2
    assert finding(report, "read model = fold of the archive").checked == 3
    assert len(report.findings) == 28
    assert json.loads(json.dumps(report.document()))["ok"] is True


async def test_an_empty_database_is_consistent(database_url: str) -> None:
    """Nothing has happened, so nothing went wrong."""
    await assert_consistent(database_url)


async def test_work_under_way_is_no_violation_until_the_pipeline_should_be_at_rest(
    pipeline: Pipeline, check: Checker
) -> None:
    """A live run is counted as live; only with `settled` it is what should not be."""
    live = await pipeline.accept()
    report = await check()
    assert report.ok, report.explain()
    assert finding(report, "accepted = terminal + live").detail == "1 accepted = 0 ended + 1 live + 0 lost"
    found = await violations(check, settled=True)
    assert set(found) == {"nothing reserved", "nothing live"}
    assert all(str(live.job_id) in examples for examples in found.values())


async def test_a_delayed_job_waits_at_rest(pipeline: Pipeline, database: Pool, check: Checker) -> None:
    """A job that was asked for later has not ended, and nothing is wrong with that until its time has come."""
    delayed = request()
    await pipeline.project(delayed)
    await database.execute(
        "INSERT INTO scheduled_events (id, topic, key, due_at, reason) "
        "VALUES (gen_random_uuid(), 'job-requests', $1, now() + interval '1 day', 'delayed')",
        delayed.key,
    )
    assert await violations(check, settled=True) == {}
    await database.execute("UPDATE scheduled_events SET due_at = now()")
    assert set(await violations(check, settled=True)) == {"nothing live", "nothing overdue"}


async def test_rows_of_the_celery_days_are_no_violation(jobs: Jobs, database: Pool, check: Checker) -> None:
    """Jobs and activities from before the pipeline have no events, no outcome and no ledger row, and need none."""
    await database.execute(
        "INSERT INTO customization_jobs (job_id, status, created_at) VALUES ($1, 'SUCCESS', '2020-01-01'), "
        "(gen_random_uuid(), 'PENDING', '2020-01-01')",
        (old := uuid4()),
    )
    await database.execute(
        "INSERT INTO customized_activities (job_id, position, title, created_at) VALUES ($1, 1, 'Old', '2020-01-01')",
        old,
    )
    assert await violations(check, settled=True) == {}


async def test_charges_brought_over_from_an_older_system_are_no_violation(
    jobs: Jobs, database: Pool, check: Checker
) -> None:
    """A counter without any ledger row was seeded; one with rows must equal their sum."""
    await database.execute("INSERT INTO quota_usage VALUES ('free', $1, 0, 7)", PERIOD)
    assert await violations(check) == {}


async def test_a_lost_request_is_reported(jobs: Jobs, database: Pool, check: Checker) -> None:
    """An accepted request of which the pipeline knows nothing is lost once it is older than the patience."""
    lost = uuid4()
    await database.execute(
        "INSERT INTO job_requests (job_id, organization_id, team_id, event, accepted_at) "
        "VALUES ($1, 'acme', 'acme-team', '{}', now() - interval '10 minutes')",
        lost,
    )
    assert await violations(check) == {}
    found = await violations(check, patience=timedelta(minutes=5))
    assert set(found) == {"accepted = terminal + live"}
    assert f"{lost} run 1" in found["accepted = terminal + live"]
    await database.execute(
        "INSERT INTO scheduled_events (id, topic, key, due_at, reason) "
        "VALUES (gen_random_uuid(), 'job-requests', convert_to($1::text, 'UTF8'), now() + interval '1 day', 'later')",
        str(lost),
    )
    assert await violations(check, patience=timedelta(minutes=5)) == {}


async def test_a_lost_replay_is_reported(jobs: Jobs, database: Pool, check: Checker) -> None:
    """An archived request of a later run counts like the first."""
    await database.execute("DELETE FROM quota_ledger WHERE job_id = $1 AND run = 2", jobs.replayed.job_id)
    await database.execute("DELETE FROM job_outcomes WHERE job_id = $1 AND run = 2", jobs.replayed.job_id)
    found = await violations(check, settled=True)
    assert f"{jobs.replayed.job_id} run 2" in found["accepted = terminal + live"]


async def test_a_request_for_somebody_elses_job_is_no_loss(pipeline: Pipeline, jobs: Jobs, check: Checker) -> None:
    """It ends among the dead letters, and owes nobody an outcome."""
    await pipeline.accept("free", job_id=jobs.done.job_id, run=2)
    assert await violations(check, settled=True) == {}


async def test_a_double_charge_is_reported(jobs: Jobs, database: Pool, check: Checker) -> None:
    """A charged run that did not complete is named with its organization and period."""
    await database.execute(
        "UPDATE quota_ledger SET state = 'charged' WHERE job_id = $1 AND run = 1", jobs.replayed.job_id
    )
    await database.execute("UPDATE quota_usage SET charged = 3 WHERE organization_id = 'acme'")
    found = await violations(check)
    assert set(found) == {"charged = completed"}
    assert found["charged = completed"] == f"{jobs.replayed.job_id} run 1 of acme {PERIOD}: charged, not completed"


@pytest.mark.parametrize("state", ["released", None])
async def test_a_completed_run_that_nobody_charged_is_reported(
    jobs: Jobs, database: Pool, check: Checker, state: str | None
) -> None:
    """Its unit was given back, or never held."""
    if state is None:
        await database.execute("DELETE FROM quota_ledger WHERE job_id = $1", jobs.done.job_id)
    else:
        await database.execute("UPDATE quota_ledger SET state = $2 WHERE job_id = $1", jobs.done.job_id, state)
    found = await violations(check)
    assert set(found) == {"charged = completed", "counters = ledger"}
    assert f"{jobs.done.job_id} run 1" in found["charged = completed"]
    assert found["counters = ledger"].startswith(f"acme {PERIOD}: counted 0 reserved and 2 charged")


async def test_a_reservation_that_leaks_is_reported(jobs: Jobs, database: Pool, check: Checker) -> None:
    """A run that has ended still holds quota, for longer than the patience."""
    await database.execute(
        "UPDATE quota_ledger SET state = 'reserved' WHERE job_id = $1 AND run = 1", jobs.replayed.job_id
    )
    await database.execute("UPDATE quota_usage SET reserved = 1 WHERE organization_id = 'acme'")
    assert await violations(check) == {}
    found = await violations(check, patience=timedelta())
    assert set(found) == {"reserved = live"}
    assert f"{jobs.replayed.job_id} run 1 of acme {PERIOD}: failed" in found["reserved = live"]


async def test_counters_that_drift_are_reported(jobs: Jobs, database: Pool, check: Checker) -> None:
    """The organization and the period are named, with both sums."""
    await database.execute("UPDATE quota_usage SET reserved = 1 WHERE organization_id = 'acme'")
    assert await violations(check) == {
        "counters = ledger": f"acme {PERIOD}: counted 1 reserved and 2 charged, the ledger has 0 and 2"
    }


async def test_an_overspent_quota_is_reported(jobs: Jobs, database: Pool, check: Checker) -> None:
    """More was taken than the plan allows."""
    await database.execute("UPDATE subscriptions SET monthly_quota = 1 WHERE organization_id = 'acme'")
    assert await violations(check) == {"within the limit": f"acme {PERIOD}: 2 of 1"}


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM customized_activities WHERE job_id = $1 AND position = 2",
        "DELETE FROM customized_activities WHERE job_id = $1",
        "INSERT INTO customized_activities (job_id, run, position, title) VALUES ($1, 1, 4, 'Fourth')",
        "UPDATE customized_activities SET run = 7 WHERE job_id = $1 AND position = 3",
        "UPDATE customized_activities SET position = 5 WHERE job_id = $1 AND position = 3",
    ],
)
async def test_a_completed_job_without_its_three_activities_is_reported(
    jobs: Jobs, database: Pool, check: Checker, damage: str
) -> None:
    """Two, none, four, one of another run, a wrong place: each is seen."""
    await database.execute(damage, jobs.done.job_id)
    found = await violations(check)
    assert set(found) == {"three activities"}
    assert str(jobs.done.job_id) in found["three activities"]


async def test_activities_of_a_job_that_did_not_complete_are_reported(
    jobs: Jobs, database: Pool, check: Checker
) -> None:
    """A refused job has activities, and so has one that nobody knows."""
    stranger = uuid4()
    for job_id in (jobs.refused.job_id, stranger):
        await database.execute(
            "INSERT INTO customized_activities (job_id, run, position, title) VALUES ($1, 1, 1, 'Stray')", job_id
        )
    found = await violations(check)
    assert set(found) == {"three activities"}
    assert str(jobs.refused.job_id) in found["three activities"]
    assert str(stranger) in found["three activities"]


async def test_a_row_that_is_not_the_fold_is_reported(jobs: Jobs, database: Pool, check: Checker) -> None:
    """The columns that differ are named, and a row that is missing."""
    await database.execute(
        "UPDATE customization_jobs SET organization_id = 'rival', completed_at = now() WHERE job_id = $1",
        jobs.done.job_id,
    )
    await database.execute("DELETE FROM customization_jobs WHERE job_id = $1", jobs.refused.job_id)
    found = await violations(check)
    assert f"{jobs.done.job_id} organization_id, completed_at" in found["read model = fold of the archive"]
    assert f"{jobs.refused.job_id} has no row" in found["read model = fold of the archive"]


async def test_an_event_that_cannot_be_read_is_reported(jobs: Jobs, database: Pool, check: Checker) -> None:
    """The archive must stay readable for ever."""
    await database.execute(
        "UPDATE job_events SET event = '{}' WHERE job_id = $1 AND type LIKE '%completed%'", jobs.done.job_id
    )
    found = await violations(check)
    assert str(jobs.done.job_id) in found["read model = fold of the archive"]


async def test_an_event_that_is_there_twice_is_reported(jobs: Jobs, database: Pool, check: Checker) -> None:
    """Only possible when the constraint is gone, which is what this finds."""
    await database.execute("ALTER TABLE job_events DROP CONSTRAINT job_events_job_id_event_id_key")
    await database.execute(
        "INSERT INTO job_events (job_id, event_id, run, type, organization_id, time, event) "
        "SELECT job_id, event_id, run, type, organization_id, time, event FROM job_events WHERE job_id = $1 LIMIT 1",
        jobs.done.job_id,
    )
    found = await violations(check)
    assert set(found) == {"no event twice"}
    assert f"{jobs.done.job_id} event" in found["no event twice"]


async def test_an_outcome_that_nobody_was_told_of_is_reported(jobs: Jobs, database: Pool, check: Checker) -> None:
    """Its terminal fact is not in the archive; the read model shows what the archive misses."""
    await database.execute("DELETE FROM job_events WHERE job_id = $1 AND type LIKE '%completed%'", jobs.done.job_id)
    found = await violations(check, settled=True)
    assert set(found) == {"outcomes are told", "read model = fold of the archive", "no gap in the archive"}
    assert all(str(jobs.done.job_id) in examples for examples in found.values())
    assert "run 1 is completed without its terminal fact" in found["no gap in the archive"]


async def test_a_fact_that_nobody_decided_is_reported(
    pipeline: Pipeline, jobs: Jobs, database: Pool, check: Checker
) -> None:
    """Somebody wrote a JobCompleted for a live run; or an outcome says otherwise than its fact."""
    forged = await pipeline.accept()
    await pipeline.project(completed(forged))
    await database.execute("UPDATE job_outcomes SET outcome = 'failed' WHERE job_id = $1", jobs.refused.job_id)
    found = await violations(check)
    assert set(found) == {"facts were decided"}
    assert f"{forged.job_id} run 1 is told completed, was decided nothing" in found["facts were decided"]
    assert f"{jobs.refused.job_id} run 1 is told rejected, was decided failed" in found["facts were decided"]


async def test_a_second_saved_attempt_is_reported(jobs: Jobs, database: Pool, check: Checker) -> None:
    """Two attempts saved one run; one saved a run that failed."""
    for job_id, run in ((jobs.done.job_id, 1), (jobs.replayed.job_id, 1)):
        await database.execute(
            "INSERT INTO generation_attempts (job_id, run, attempt, token, state, started_at) "
            "VALUES ($1, $2, 2, gen_random_uuid(), 'saved', now())",
            *(job_id, run),
        )
    found = await violations(check)
    assert set(found) == {"one saved attempt"}
    assert f"{jobs.done.job_id} run 1: 2 saved, outcome completed" in found["one saved attempt"]
    assert f"{jobs.replayed.job_id} run 1: 1 saved, outcome failed" in found["one saved attempt"]


async def test_a_failure_that_cannot_be_found_is_reported(pipeline: Pipeline, database: Pool, check: Checker) -> None:
    """A run that a stage gave up, and no dead letter of it: nobody could replay it."""
    event = await pipeline.accept()
    await fail_run(pipeline.database, pipeline.clock, event, Permanent("llm_refusal", "no"))
    found = await violations(check, patience=timedelta())
    assert found["failed means findable"] == f"{event.job_id} run 1: llm_refusal, and no failed event"
    await database.execute(
        "INSERT INTO failed_events (id, topic, stage, reason, error_type, error_message, attempts, first_failed_at,"
        " last_failed_at, job_id, run)"
        " VALUES (gen_random_uuid(), 'job-accepted', 'generation', 'given_up', 'E', 'no', 1, now(), now(), $1, 1)",
        event.job_id,
    )
    assert "failed means findable" not in await violations(check, patience=timedelta())


async def test_a_spend_that_drifts_is_reported(jobs: Jobs, database: Pool, check: Checker) -> None:
    """A total that the attempts do not add up to is named with both sums."""
    await database.execute(
        "INSERT INTO generation_attempts (job_id, run, attempt, token, state, started_at, organization_id)"
        " VALUES ($1, 1, 9, gen_random_uuid(), 'started', '2031-04-15', 'acme')",
        jobs.done.job_id,
    )
    assert not await violations(check)
    await database.execute(
        "UPDATE generation_attempts SET state = 'failed', prompt_tokens = 7, completion_tokens = 3 WHERE attempt = 9"
    )
    assert not await violations(check)
    await database.execute("UPDATE llm_usage SET calls = calls + 1")
    found = await violations(check)
    assert found == {
        "spend = attempts": "acme 2031-04: counted 2 calls, 10 tokens and a cost of 0, the attempts have 1, 10 and 0"
    }
    await database.execute("UPDATE llm_usage SET calls = calls - 1, cost = 7")
    assert "a cost of 7" in (await violations(check))["spend = attempts"]


async def test_a_call_without_a_record_is_reported(jobs: Jobs, check: Checker, database: Pool) -> None:
    """The provider counted more calls than there are attempts and probes."""
    assert await violations(check, llm_calls=4) == {"calls are recorded": "1 calls without a record"}
    await database.execute("INSERT INTO llm_probes VALUES ('e', 'm', '2031-04', 1, 0, 7, 1)")
    assert await violations(check, llm_calls=4) == {}
    assert await violations(check, llm_calls=3) == {}


async def test_a_dead_letter_that_says_nothing_is_reported(jobs: Jobs, database: Pool, check: Checker) -> None:
    """Its ID is named."""
    letter = uuid4()
    await database.execute(
        "INSERT INTO failed_events (id, topic, stage, reason, error_type, error_message, attempts, first_failed_at, "
        "last_failed_at) VALUES ($1, 'job-requests', ' ', 'error', 'ValueError', 'no', 1, now(), now())",
        letter,
    )
    assert await violations(check) == {"dead letters say why": f"{letter} of job-requests"}


async def test_a_run_that_was_set_aside_is_reported_until_it_has_ended(
    jobs: Jobs, pipeline: Pipeline, database: Pool, check: Checker
) -> None:
    """It is named with the reason, also where it moves no alert any more; one that ended by itself is over."""
    live = await pipeline.accept()
    await database.executemany(
        "INSERT INTO reemissions (job_id, run, times, last_at, set_aside) VALUES ($1, 1, 3, now(), $2)",
        [(live.job_id, "no such time"), (jobs.done.job_id, "it was mended"), (jobs.refused.job_id, None)],
    )
    assert await violations(check) == {"nothing set aside": f"{live.job_id} run 1: no such time"}


async def test_a_job_without_events_is_reported(jobs: Jobs, database: Pool, check: Checker) -> None:
    """The read model shows a job, newer than the pipeline, of which the archive has nothing."""
    unfounded = uuid4()
    await database.execute(
        "INSERT INTO customization_jobs (job_id, organization_id, status) VALUES ($1, 'acme', 'processing')", unfounded
    )
    assert await violations(check, settled=True) == {"no gap in the archive": f"{unfounded} no events"}


async def test_what_is_overdue_at_rest_is_reported(jobs: Jobs, database: Pool, check: Checker) -> None:
    """While the pipeline works, something may be due at any moment; at rest nobody will take it."""
    await database.execute(
        "INSERT INTO scheduled_events (id, topic, due_at, reason) "
        "VALUES (gen_random_uuid(), 'job-requests', now() - interval '1 second', 'retry')"
    )
    assert await violations(check) == {}
    assert set(await violations(check, settled=True)) == {"nothing overdue"}


async def test_examples_are_bounded_and_the_rest_is_counted(jobs: Jobs, database: Pool, check: Checker) -> None:
    """A thousand violations are counted, and a few named."""
    await database.execute(
        "INSERT INTO customization_jobs (job_id, status) "
        "SELECT gen_random_uuid(), 'pending' FROM generate_series(1, 1000)"
    )
    report = await check(examples=3)
    gaps = finding(report, "no gap in the archive")
    assert (gaps.violations, len(gaps.examples)) == (1000, 3)
    assert "… and 997 more" in report.explain()


async def test_the_check_sees_one_moment_and_cannot_write(jobs: Jobs, database_url: str) -> None:
    """It runs in a read-only snapshot, and leaves the connection as it was."""
    connection = await asyncpg.connect(database_url)
    try:
        sent: list[str] = []
        with connection.query_logger(lambda query: sent.append(query.query)):
            await verify(connection)
        assert "REPEATABLE READ" in sent[0].upper()
        assert "READ ONLY" in sent[0].upper()
        assert await connection.fetchval("SHOW statement_timeout") == "0"
    finally:
        await connection.close()


async def test_a_check_that_takes_too_long_ends_with_advice(jobs: Jobs, database: Pool, check: Checker) -> None:
    """A busy server is not kept busy: the statement ends, and the message says what to do."""
    async with database.acquire() as holder, holder.transaction():
        await holder.execute("LOCK TABLE quota_ledger IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(CheckTimedOut, match="more time"):
            await check(statement_timeout=timedelta(seconds=0.2))


async def test_a_check_beside_a_working_pipeline_does_not_cry_wolf(
    pipeline: Pipeline, database: Pool, check: Checker
) -> None:
    """Each check sees one moment, in which every step of every job has happened whole or not at all."""
    await database.execute("UPDATE subscriptions SET monthly_quota = 1000 WHERE organization_id = 'acme'")

    async def work() -> None:
        for _ in range(12):
            first = await pipeline.fail()
            await pipeline.complete(await pipeline.accept(job_id=first.job_id, run=2))
            await pipeline.complete()

    workers = asyncio.gather(work(), work(), work())
    checks = 0
    while not workers.done():
        report = await check()
        assert report.ok, report.explain()
        checks += 1
    await workers
    assert checks > 1
    report = await check(settled=True)
    assert report.ok, report.explain()
    assert finding(report, "charged = completed").checked == 72


async def test_what_retention_removed_is_no_gap(
    jobs: Jobs, database: Pool, database_url: str, pipeline: Pipeline
) -> None:
    """The jobs of years ago keep their rows and lose their events; nobody is to blame."""
    for statement in (
        "UPDATE job_events SET archived_at = archived_at - interval '500 days'",
        "UPDATE job_outcomes SET decided_at = decided_at - interval '500 days'",
        "UPDATE customization_jobs SET completed_at = now() - interval '500 days'",
        "UPDATE customization_jobs SET updated_at = completed_at",
    ):
        await database.execute(statement)
    assert await Retention(pipeline.database, SystemClock(), keep=timedelta(days=400)).delete_old() > 0
    assert await database.fetchval("SELECT count(*) FROM job_events") == 0
    await pipeline.complete()
    await assert_consistent(database_url)
    assert await database.fetchval("SELECT status FROM customization_jobs WHERE job_id = $1", jobs.done.job_id)


REQUESTED, CANCELLED = "teamfit.job.requested.v1", "teamfit.job.cancel-requested.v1"


async def _refused(
    database: Pool, job_id: UUID, organization: str, kind: str, *, error: str = "ForgedEvent", event: bytes = b"{}"
) -> None:
    """Keep what two stages make of one event that they do not believe."""
    for stage in ("projection", "quota"):
        await database.execute(
            "INSERT INTO failed_events (id, topic, stage, reason, error_type, error_message, attempts, first_failed_at,"
            " last_failed_at, job_id, run, organization_id, event_type, event_id, event)"
            " VALUES (gen_random_uuid(), 'job-requests', $1, 'given_up', $2, 'no', 1, now(), now(), $3, 1, $4, $5,"
            " 'e', $6)",
            *(stage, error, job_id, organization, kind, event),
        )


async def test_forgeries_are_counted_once_and_mistakes_apart(jobs: Jobs, database: Pool, check: Checker) -> None:
    """Forged is what claims another organization's job, or a stage's word; what a sender gets wrong breaks nothing."""
    own, nobodys = jobs.done.job_id, uuid4()
    assert finding(await check(), "mistakes of senders").detail == "none is open"
    await _refused(database, own, "birch", REQUESTED)
    await _refused(database, own, "birch", REQUESTED, error="InvalidEvent", event=b"{malformed")
    await _refused(database, own, "acme", "teamfit.job.completed.v1")
    await _refused(database, own, "acme", REQUESTED, error="JobIdReused")
    await _refused(database, own, "acme", CANCELLED, event=b"{of a later run")
    await _refused(database, nobodys, "acme", REQUESTED, event=b"{of a later run")
    await _refused(database, nobodys, "acme", REQUESTED, error="InvalidEvent")
    report = await check()
    forged, mistakes = finding(report, "nothing forged"), finding(report, "mistakes of senders")
    assert (forged.violations, mistakes.checked, mistakes.violations) == (3, 4, 0)
    assert "refused by projection and quota" in forged.examples[0]
    assert [one.split()[0] for one in mistakes.examples].count(str(own)) == 2
    assert mistakes.detail == "teamfit failed list has them; tell their senders"
    await database.execute("DELETE FROM failed_events WHERE organization_id = 'birch' OR event_type LIKE '%completed%'")
    assert (await check()).ok


async def test_a_line_that_is_miscounted_is_reported(pipeline: Pipeline, database: Pool, check: Checker) -> None:
    """Its counters speak of an organization that has nothing in the line, or of too few; recounting mends both."""
    await pipeline.accept()
    await database.execute("SELECT * FROM dispatch(0, false)")
    assert (await check()).ok
    await database.execute("UPDATE dispatch_organizations SET waiting = 7, in_flight = 3")
    await database.execute(
        "INSERT INTO dispatch_organizations (organization_id, tag, since, waiting) VALUES ('free', 0, 0, 2)"
    )
    found = await violations(check)
    assert set(found) == {"line = counters"}
    assert "acme: counted 7 waiting and 3 in flight, the rows have 1 and 0" in found["line = counters"]
    assert "free: counted 2 waiting and 0 in flight, the rows have 0 and 0" in found["line = counters"]
    assert await database.fetchval("SELECT dispatch_recount()") == 2
    assert (await check()).ok


async def test_what_is_dead_and_stays_in_the_line_is_reported(
    pipeline: Pipeline, database: Pool, check: Checker
) -> None:
    """A run that ended unnoticed holds a slot, once nobody has found it for the patience; one without quota waits."""
    over, unknown = await pipeline.accept(), await pipeline.accept()
    await database.execute("SELECT * FROM dispatch(1, false)")
    await pipeline.complete(over)
    await database.execute("UPDATE dispatch_runs SET ended = false")
    await database.execute("DELETE FROM quota_ledger WHERE job_id = $1", unknown.job_id)
    assert str(over.job_id) not in (await violations(check))["line = live"]
    found = await violations(check, patience=timedelta())
    assert f"{over.job_id} run 1 of acme: released, completed" in found["line = live"]
    assert f"{unknown.job_id} run 1 of acme: waiting, quota never held" in found["line = live"]
