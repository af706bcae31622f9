"""One of two endpoints is away: a fleet of real workers goes on with the other, and asks gently whether it is back."""

import json
from pathlib import Path

import pytest

from infra.postgres import Database
from streams.jobs.dispatch import enter
from streams.jobs.topics import JOB_ACCEPTED, record
from tests.away_provider import away_provider, most_probes, wish
from tests.integration.generation.conftest import Pool, WorkerStarter, accepted, entered
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("team")

_AWAY_S = 4.0
_WORKERS = 2
_JOBS = 200


async def test_the_fleet_goes_on_and_probes_once_a_period(
    start_worker: WorkerStarter, database: Pool, database_url: str, tmp_path: Path
) -> None:
    """Jobs are completed while it is away, each by one answer; when it is back it gets jobs again."""
    events = [accepted(requirements=wish(number)) for number in range(_JOBS)]
    pool = Database(database_url, size=1)
    for event in events:
        await entered(pool, event)
    async with pool.transaction() as connection:
        await enter(connection, [record(JOB_ACCEPTED, event) for event in events])
    await pool.close()
    done = "SELECT count(*) FROM job_outcomes WHERE outcome = 'completed'"
    async with away_provider(latency_s=0.5) as first, away_provider(latency_s=0.5) as second:
        listed = [
            {"name": name, "base_url": one.url, "key": "k", "model": "teamfit-offline-composer"}
            for name, one in (("first", first), ("second", second))
        ]
        (tmp_path / "two.json").write_text(json.dumps({"endpoint": listed}))
        variables = {"TEAMFIT_LLM_ENDPOINTS": str(tmp_path / "two.json"), "TEAMFIT_GENERATION_CONCURRENCY": "3"}
        for _ in range(_WORKERS):
            await start_worker(variables=variables)
        await wait_for(lambda: first.answered and second.answered, deadline_s=60, what="both endpoints to be used")
        first.is_away = True
        held = "SELECT count(*) FROM llm_holds WHERE passed_at IS NULL AND now() >= held_at + make_interval(secs => $1)"
        await wait_for(lambda: database.fetchval("SELECT count(*) FROM llm_holds"), deadline_s=60, what="a hold")
        before = await database.fetchval(done)
        await wait_for(lambda: database.fetchval(held, _AWAY_S), deadline_s=60, what="the time away to pass")
        away_s = await database.fetchval("SELECT extract(epoch FROM now() - held_at)::float8 FROM llm_holds")
        probes, answered = first.probes, first.answered
        first.is_away = False
        assert await database.fetchval(done) > before
        assert 0 < probes <= most_probes(away_s, _WORKERS)
        every = f"SELECT ({done}) = $1"
        await wait_for(lambda: database.fetchval(every, _JOBS), deadline_s=120, what="all jobs to be completed")
        assert first.answered > answered
        assert first.answered + second.answered == _JOBS
        calls = await database.fetchrow(
            "SELECT count(*) FILTER (WHERE state = 'saved'), count(*) FILTER (WHERE state = 'failed'), count(*)"
            " FROM generation_attempts"
        )
        assert calls is not None
        assert tuple(calls) == (_JOBS, first.refused, _JOBS + first.refused)
    assert await database.fetchval("SELECT count(*) FROM customized_activities") == 3 * _JOBS
