"""`teamfit lag`, `job`, `quota` and `llm`, run as an operator runs them, on real servers."""

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from streams.jobs.events import JobCancelled, parse_event
from tests.commands import Run
from tests.conftest import Pool
from tests.integration.pipeline_scene import Pipeline, pipeline_on
from tests.integration.quota_scene import PERIOD, add_organization, usage
from tests.stream_entries import entries_of


@pytest.fixture
async def pipeline(database: Pool, database_url: str) -> AsyncIterator[Pipeline]:
    """The stages' handlers, and two customers."""
    await add_organization(database)
    await add_organization(database, "birch")
    async with pipeline_on(database_url) as opened:
        yield opened


async def test_lag_says_what_waits_and_whom_it_waits_for(teamfit: Run, redis_url: str) -> None:
    """By topic and group, as a table and as JSON; a backlog that nobody reads comes with the command to start."""
    async with Redis.from_url(redis_url) as redis:
        await redis.xgroup_create("job-requests", "quota", "0", mkstream=True)
        for _ in range(3):
            await redis.xadd("job-requests", {"event": "x"})
        await redis.xreadgroup("quota", "w1", {"job-requests": ">"}, count=1)
        await redis.xadd("{job-requests.1}", {"event": "written by somebody who counts two partitions"})
    said = await teamfit("lag")
    assert said.exit_code == 0, said.output
    assert "No worker reads job-requests for projection: start `teamfit worker projection`." in said.stdout
    assert "for quota" not in said.stdout
    assert "No worker reads the stream {job-requests.1}: its writer counts" in said.stdout
    (requests,) = [one for one in json.loads((await teamfit("lag", "--json")).stdout) if one["topic"] == "job-requests"]
    quota, projection = requests["groups"]
    assert (requests["length"], quota["lag"], quota["pending"], quota["consumers"]) == (3, 2, 1, 1)
    assert quota["oldest_pending"] >= 0
    assert (projection["lag"], projection["oldest_pending"]) == (3, None)


@pytest.mark.parametrize("broker_url", ["redis://127.0.0.1:1/0", "kafka://127.0.0.1:1"])
async def test_lag_without_a_broker_is_explained(
    teamfit: Run, monkeypatch: pytest.MonkeyPatch, broker_url: str
) -> None:
    """One line that names the setting, and no traceback."""
    monkeypatch.setenv("BROKER_URL", broker_url)
    said = await teamfit("lag")
    assert (said.exit_code, "BROKER_URL" in said.stderr, said.exception.__class__) == (1, True, SystemExit), said.output


async def test_the_life_of_a_job_is_on_one_screen(teamfit: Run, pipeline: Pipeline, database: Pool) -> None:
    """Its status, both runs' facts and quota, the calls, what is scheduled, what failed, and what was sent again."""
    first = await pipeline.fail()
    event = await pipeline.accept(job_id=first.job_id, run=2)
    await pipeline.complete(event)
    await database.execute(
        "INSERT INTO scheduled_events (id, topic, key, due_at, reason) VALUES "
        "(gen_random_uuid(), 'job-events', convert_to($1, 'UTF8'), now(), 'publish unconfirmed')",
        str(event.job_id),
    )
    await database.execute(
        "INSERT INTO failed_events (id, topic, stage, reason, error_type, error_message, attempts, first_failed_at, "
        "last_failed_at, job_id) VALUES (gen_random_uuid(), 'job-accepted', 'generation', 'given_up', 'Transient', "
        "E'too slow \\x1b[2J', 3, now(), now(), $1)",
        event.job_id,
    )
    await database.execute("INSERT INTO reemissions VALUES ($1, 1, 4, now(), 'no such time')", event.job_id)
    said = await teamfit("job", "show", event.job_id)
    assert said.exit_code == 0, said.output
    for expected in (
        "status completed",
        "teamfit.job.requested.v1",
        "timeout: too slow",
        "released",
        "charged",
        "Puzzle 3",
        "publish unconfirmed",
        "Transient",
        "Sent again because it stood still",
        "no such time",
    ):
        assert expected in said.stdout, said.stdout
    assert "\x1b[2J" not in said.stdout
    said = await teamfit("job", "show", event.job_id, "--json")
    assert said.exit_code == 0, said.exception
    life = json.loads(said.stdout)
    assert (life["job"]["status"], life["job"]["run"]) == ("completed", 2)
    assert [(one["run"], one["state"]) for one in life["quota"]] == [(1, "released"), (2, "charged")]
    assert [(one["run"], one["outcome"]) for one in life["outcomes"]] == [(1, "failed"), (2, "completed")]
    assert [len(life[name]) for name in ("facts", "calls", "scheduled", "failed", "activities")] == [4, 2, 1, 1, 3]


async def test_a_call_of_unknown_cost_is_shown_as_unknown(teamfit: Run, pipeline: Pipeline, database: Pool) -> None:
    """An empty cell might be read as zero."""
    event = await pipeline.accept()
    await pipeline.complete(event)
    counted = await teamfit("job", "show", event.job_id)
    assert "unknown" not in counted.stdout
    await database.execute("UPDATE generation_attempts SET completion_tokens = NULL, maybe_billed = true")
    said = await teamfit("job", "show", event.job_id)
    assert "unknown" in said.stdout
    (call,) = json.loads((await teamfit("job", "show", event.job_id, "--json")).stdout)["calls"]
    assert (call["completion_tokens"], call["maybe_billed"]) == (None, True)


async def test_a_job_that_nobody_knows_is_explained(teamfit: Run) -> None:
    """It may still wait in the stream: the message says how to find out."""
    said = await teamfit("job", "show", uuid4())
    assert (said.exit_code, "teamfit lag" in said.stderr) == (1, True), said.output


async def test_jobs_of_any_organization_are_cancelled(
    teamfit: Run, pipeline: Pipeline, database: Pool, redis_url: str
) -> None:
    """Several at once, by the API's own path: decided in Postgres, told in the stream. A repeat changes nothing."""
    jobs = [await pipeline.accept("acme"), await pipeline.accept("birch")]
    ids = [job.job_id for job in jobs]
    refused = await teamfit("job", "cancel", *ids, "--because", "off", answer="n\n")
    assert (refused.exit_code, await database.fetchval("SELECT count(*) FROM job_outcomes")) == (1, 0)
    assert f"{ids[1]}  birch, run 1, not ended" in refused.stdout
    for _ in range(2):
        said = await teamfit("job", "cancel", *ids, "--because", "the offsite is off", "--yes")
        assert (said.exit_code, said.stdout.count("cancelled, run 1")) == (0, 2), said.output
    facts = [parse_event(fields[b"event"]) for fields in await entries_of(redis_url, "job-events")]
    assert {
        (fact.job_id, fact.data.organization_id, fact.data.reason) for fact in facts if isinstance(fact, JobCancelled)
    } == {(ids[0], "acme", "the offsite is off"), (ids[1], "birch", "the offsite is off")}


async def test_what_cannot_be_cancelled_does_not_keep_the_others_alive(teamfit: Run, pipeline: Pipeline) -> None:
    """Each job has its own answer, and the exit code says that not all are cancelled."""
    ended, live, unknown = (await pipeline.complete()).job_id, (await pipeline.accept()).job_id, uuid4()
    said = await teamfit("job", "cancel", ended, unknown, live, "--because", "off", "--yes", "--json")
    results = {one["job_id"]: (one["cancelled"], one["code"]) for one in json.loads(said.stdout)}
    assert said.exit_code == 1
    assert results == {
        str(ended): (False, "job_completed"),
        str(unknown): (False, "job_not_found"),
        str(live): (True, None),
    }


async def test_a_job_that_nobody_knows_is_not_asked_about(teamfit: Run, pipeline: Pipeline) -> None:
    """Nothing would follow from a yes; beside one that lives, the question counts that one alone."""
    alone = await teamfit("job", "cancel", uuid4(), "--because", "off")
    assert alone.exit_code == 1
    assert "not known" in alone.stdout
    assert "?" not in alone.output
    live = (await pipeline.accept()).job_id
    asked = await teamfit("job", "cancel", uuid4(), live, "--because", "off", answer="n\n")
    assert "Cancel 1 job(s)?" in asked.output


FILTERED = [
    ("failed", "list", "--error", "\udcff"),
    ("failed", "groups", "--organization", "\udcff"),
    ("jobs", "list", "--trace", "abc"),
    ("jobs", "list", "--run", "-1"),
    ("jobs", "list", "--words", ""),
    ("jobs", "list", "--error", "llm_refusl"),
    ("cancel", "plan", "--team", ""),
    ("actions", "list", "--actor", "\udcff"),
    ("organization", "show", " "),
    ("organization", "show", "x" * 65),
]


@pytest.mark.parametrize("command", FILTERED, ids=" ".join)
async def test_a_wrong_option_is_told_plainly(teamfit: Run, command: tuple[str, ...]) -> None:
    """With its name and the fix, whatever is wrong with it; no traceback, and no word of Pydantic."""
    said = await teamfit(*command)
    assert said.exit_code in {1, 2}, said.output
    assert said.exception.__class__ is SystemExit, said.output
    assert not re.search("[Ii]nput|[Vv]alue error|String should|pydantic", said.output.replace("Invalid value", ""))


async def test_the_gate_is_shown_and_opened(teamfit: Run, database: Pool) -> None:
    """A closed one says for how long and why; it is opened after a question, and whoever asks next finds it open."""
    assert "The gate is open" in (await teamfit("llm", "gate", "show")).stdout
    until = datetime.now(UTC) + timedelta(hours=1)
    await database.execute("INSERT INTO llm_gate VALUES ('https://llm/v1', $1, 'llm_rate_limited')", until)
    shown = await teamfit("llm", "gate", "show")
    assert "https://llm/v1" in shown.stdout
    assert "llm_rate_limited" in shown.stdout
    (gate,) = json.loads((await teamfit("llm", "gate", "show", "--json")).stdout)
    assert gate["closed_for"] > 3_000
    assert (await teamfit("llm", "gate", "open", answer="n\n")).exit_code == 1
    assert await database.fetchval("SELECT closed_until FROM llm_gate") == until
    wrong = await teamfit("llm", "gate", "open", "https://other", "--yes")
    assert (wrong.exit_code, "https://llm/v1" in wrong.stderr) == (1, True)
    opened = await teamfit("llm", "gate", "open", "https://llm/v1", "--yes")
    assert "https://llm/v1 is open." in opened.stdout
    assert "within two seconds" in opened.stdout
    assert await database.fetchval("SELECT closed_until <= now() FROM llm_gate")
    assert "nothing was changed" in (await teamfit("llm", "gate", "open", "--yes")).stdout


async def test_an_endpoint_that_has_never_answered_is_not_said_to_work(teamfit: Run, database: Pool) -> None:
    """One that none of its workers reaches says why; one whose workers have gone, that all calls have failed."""
    used = "INSERT INTO llm_hours VALUES ($1, 'm', date_trunc('hour', now(), 'UTC'), $2, $3, 0, 1, 0, 0)"
    for endpoint, calls, failed in (("http://good/v1", 3, 1), ("localhost", 2, 2), ("http://gone/v1", 2, 2)):
        await database.execute(used, endpoint, calls, failed)
    lives = (
        "INSERT INTO fleet_processes (process, kind, host, pid, version, stages, seen_at, rss_bytes, log_level, doing)"
        " VALUES (gen_random_uuid(), 'worker', 'h', 1, '1', '{generation}', now(), 0, 'info',"
        " jsonb_build_array(jsonb_build_object('stage', 'generation', 'endpoints', $1::jsonb, 'unreached', $2::jsonb)))"
    )
    await database.execute(lives, '["localhost"]', '{"localhost": "OPENAI_BASE_URL is localhost"}')
    await database.execute(lives, '["http://good/v1"]', "{}")
    await database.execute(lives, '["http://good/v1"]', '{"http://good/v1": "not reachable from here"}')
    said = (await teamfit("llm", "endpoints")).stdout.splitlines()
    states = {name: next(line for line in said if name in line) for name in ("good", "localhost", "gone")}
    assert "works" in states["good"]
    assert "held" in states["localhost"]
    assert "all failed" in states["gone"]
    found = {one["endpoint"]: one["held"] for one in json.loads((await teamfit("llm", "endpoints", "--json")).stdout)}
    assert found == {"http://good/v1": None, "localhost": "OPENAI_BASE_URL is localhost", "http://gone/v1": None}


async def test_what_is_known_of_an_endpoint_is_shown_and_forgotten(teamfit: Run, database: Pool) -> None:
    """How it is asked and why it is held; what was learned is forgotten after a question."""
    assert "Nothing is learned" in (await teamfit("llm", "dialect", "show")).stdout
    assert "No endpoint is held" in (await teamfit("llm", "hold", "show")).stdout
    await database.execute(
        "INSERT INTO llm_dialects VALUES"
        " ('https://llm/v1', 'm', 'auto', 'prompt', 'max_tokens', true, 'more was refused', now(), NULL)"
    )
    await database.execute(
        "INSERT INTO llm_holds (endpoint, model, credential, blame, code, sentence, next_probe_at)"
        " VALUES ('https://llm/v1', 'm', 'c', 'account', 'llm_insufficient_quota', 'has no credit', now())"
    )
    for command in (("dialect", "max_tokens"), ("hold", "has no credit")):
        shown = await teamfit("llm", command[0], "show")
        assert ("https://llm/v1" in shown.stdout, command[1] in shown.stdout) == (True, True)
        (one,) = json.loads((await teamfit("llm", command[0], "show", "--json")).stdout)
        assert one["model"] == "m"
    assert (await teamfit("llm", "dialect", "forget", answer="n\n")).exit_code == 1
    assert "Nothing was learned" in (await teamfit("llm", "dialect", "forget", "https://other", "--yes")).stdout
    assert "https://llm/v1 m is forgotten" in (await teamfit("llm", "dialect", "forget", "--yes")).stdout
    assert await database.fetchval("SELECT count(*) FROM llm_dialects") == 0


async def test_a_quota_is_shown_with_what_is_left(teamfit: Run, pipeline: Pipeline) -> None:
    """The plan, and each month's counters beside the ledger."""
    await pipeline.accept()
    await pipeline.complete()
    assert (await teamfit("llm", "prices", "set", "m", "1", "2", "--currency", "EUR")).exit_code == 0
    budget = await teamfit("organization", "set", "acme", "--budget", "12.50")
    assert budget.exit_code == 0, budget.output
    shown = await teamfit("quota", "show", "acme")
    assert "Budget of the month: 12.50 (hard)" in shown.stdout
    assert (shown.exit_code, "plan team (active), 50 jobs a month" in shown.stdout) == (0, True), shown.output
    now, month = json.loads((await teamfit("quota", "show", "acme", "--json")).stdout)["periods"]
    assert (now["period"], now["charged"]) == (datetime.now(UTC).strftime("%Y-%m"), 0), "the month that is now is shown"
    assert month == {
        "period": PERIOD,
        "reserved": 1,
        "charged": 1,
        "ledger_reserved": 1,
        "ledger_charged": 1,
        "released": 0,
        "rejected": 0,
        "differs": False,
    }
    unknown = await teamfit("quota", "show", "nobody")
    assert (unknown.exit_code, "not known" in unknown.stderr) == (1, True)


@pytest.mark.parametrize(
    "damage",
    ["UPDATE quota_usage SET reserved = 7, charged = 0", "DELETE FROM quota_usage"],
    ids=["changed", "removed"],
)
async def test_counters_that_differ_are_counted_again(
    teamfit: Run, pipeline: Pipeline, database: Pool, damage: str
) -> None:
    """First it is only said; with --yes the counters are the ledger's sums again, and a repeat has nothing to do."""
    live = await pipeline.accept()
    await pipeline.complete()
    await database.execute(damage)
    shown = await teamfit("quota", "show", "acme")
    assert "teamfit quota repair acme" in shown.stdout
    planned = await teamfit("quota", "repair", "acme")
    assert "the ledger has 1 and 1" in planned.stdout
    assert "Nothing was changed." in planned.stdout
    with pytest.raises(AssertionError):
        await usage(database)
    done = await teamfit("quota", "repair", "acme", "--yes")
    assert (done.exit_code, "now 1 reserved and 1 charged" in done.stdout) == (0, True), done.output
    assert await usage(database) == (1, 1)
    assert "nothing to repair" in (await teamfit("quota", "repair", "acme", "--yes")).stdout
    await pipeline.complete(live)
    assert await usage(database) == (0, 2)


@pytest.mark.parametrize(
    "command",
    [
        ("job", "show", uuid4()),
        ("job", "cancel", uuid4(), "--because", "off", "--yes"),
        ("quota", "show", "acme"),
        ("quota", "repair", "acme"),
        ("llm", "gate", "show"),
        ("llm", "gate", "open", "--yes"),
    ],
    ids=lambda command: " ".join(map(str, command[:2])),
)
async def test_without_postgres_each_says_what_to_check(
    teamfit: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[object, ...]
) -> None:
    """One line that names the setting, and no traceback."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://teamfit@127.0.0.1:1/teamfit")
    said = await teamfit(*command)
    assert (said.exit_code, "DATABASE_URL" in said.stderr, said.exception.__class__) == (1, True, SystemExit)
