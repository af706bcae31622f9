"""From an accepted job to three saved activities."""

import asyncio

import pytest

from consumers.generation.attempts import Attempts
from consumers.generation.gate import Gate
from consumers.generation.runs import Attempt
from infra.clock import SystemClock
from infra.errors import DependencyDown, Permanent, Transient
from infra.local.servers import start_postgres
from infra.migrations import upgrade
from streams.jobs.events import Completed, JobCompleted, JobStarted, parse_event
from streams.jobs.outcomes import decide_outcome
from tests.integration.generation.conftest import (
    Endpoint,
    Pool,
    StageUnderTest,
    Starter,
    accepted,
    die_in_a_call,
    handovers,
)
from tests.waiting import wait_for


async def test_an_accepted_job_becomes_three_saved_activities(stage: StageUnderTest, database: Pool) -> None:
    """One call gives three activities, saved with model and tokens; JobStarted goes out before, JobCompleted after."""
    event = accepted()
    (completed,) = await stage.handle(event)

    rows = await database.fetch("SELECT * FROM customized_activities WHERE job_id = $1 ORDER BY position", event.job_id)
    assert [row["position"] for row in rows] == [1, 2, 3]
    assert all(row["title"] and row["description"] and row["objective"] for row in rows)
    assert {row["model"] for row in rows} == {"teamfit-offline-composer"}
    attempt = await database.fetchrow("SELECT * FROM generation_attempts")
    assert attempt is not None
    assert (attempt["state"], attempt["maybe_billed"]) == ("saved", False)
    assert attempt["prompt_tokens"] == rows[0]["prompt_tokens"] > 0
    started = parse_event(stage.published.records[0].value)
    assert isinstance(started, JobStarted)
    assert started.data.attempt == 1
    fact = parse_event(completed.value)
    assert isinstance(fact, JobCompleted)
    assert fact.data == Completed(
        organization_id="org-1",
        model=attempt["model"],
        prompt_tokens=attempt["prompt_tokens"],
        completion_tokens=attempt["completion_tokens"],
    )
    assert fact.time == attempt["finished_at"]


async def test_a_completed_run_gives_its_fact_again_without_a_call(
    stage: StageUnderTest, start_stage: Starter, endpoint: Endpoint
) -> None:
    """A worker that died between saving and publishing is repaired by redelivery, to any worker, and pays nothing."""
    event = accepted()
    first = await stage.handle(event)
    again = await (await start_stage()).handle(event)
    assert [one.value for one in again] == [one.value for one in first]
    assert (await endpoint.calls())["received"] == 1


async def test_an_entry_that_comes_back_to_its_own_worker_waits_for_its_first_call(
    stage: StageUnderTest, endpoint: Endpoint
) -> None:
    """A worker that was stalled past its lease and takes the entry over from itself makes one call."""
    await endpoint.tell("ok", latency=0.2)
    event = accepted()
    first, second = await asyncio.gather(stage.handle(event), stage.handle(event))
    assert [one.value for one in first] == [one.value for one in second]
    assert (await endpoint.calls())["received"] == 1


async def test_a_zombies_late_answer_changes_nothing(
    stage: StageUnderTest, start_stage: Starter, endpoint: Endpoint, database: Pool
) -> None:
    """A stalled worker that answers after another took its run over saves and publishes nothing; its cost is kept."""
    event = accepted()
    await endpoint.tell("ok", latency=3.0, count=1)
    zombie = asyncio.create_task(stage.handle(event))

    await wait_for(endpoint.busy, what="the zombie's call")
    (completed,) = await (await start_stage()).handle(event)
    assert isinstance(parse_event(completed.value), JobCompleted)
    saved = await database.fetch("SELECT * FROM customized_activities ORDER BY position")

    assert await zombie == ()
    assert await database.fetch("SELECT * FROM customized_activities ORDER BY position") == saved
    attempts = await database.fetch("SELECT * FROM generation_attempts ORDER BY attempt")
    assert [(row["state"], row["maybe_billed"]) for row in attempts] == [("abandoned", True), ("saved", False)]
    assert all(row["prompt_tokens"] for row in attempts)


async def test_a_dead_workers_attempt_is_abandoned_as_maybe_billed(
    start_stage: Starter, endpoint: Endpoint, team: str, database: Pool
) -> None:
    """A worker that dies during its call leaves an attempt that the next worker marks, and then completes the run."""
    event = accepted()
    await die_in_a_call(start_stage, endpoint, event)
    assert await (await start_stage()).handle(event)
    rows = await database.fetch("SELECT state, maybe_billed FROM generation_attempts ORDER BY attempt")
    assert [tuple(row) for row in rows] == [("abandoned", True), ("saved", False)]


async def test_a_later_run_replaces_the_activities_of_an_earlier_one(stage: StageUnderTest, database: Pool) -> None:
    """A replayed job has three activities, those of its last run."""
    first = accepted()
    await stage.handle(first)
    await stage.handle(accepted(job_id=first.job_id, run=2))
    rows = await database.fetch("SELECT run, position FROM customized_activities ORDER BY position")
    assert [tuple(row) for row in rows] == [(2, 1), (2, 2), (2, 3)]


@pytest.mark.parametrize("outcome", ["cancelled", "rejected"])
async def test_a_run_that_ended_otherwise_is_not_begun(
    stage: StageUnderTest, endpoint: Endpoint, database: Pool, outcome: str
) -> None:
    """A job that was cancelled before its turn makes no call, saves nothing and says nothing."""
    event = accepted()
    await database.execute("INSERT INTO job_outcomes VALUES ($1, 1, $2)", event.job_id, outcome)
    assert await stage.handle(event) == ()
    assert (await endpoint.calls())["received"] == 0
    assert await database.fetchval("SELECT count(*) FROM generation_attempts") == 0


async def test_a_run_cancelled_during_its_call_saves_nothing(
    stage: StageUnderTest, endpoint: Endpoint, database: Pool
) -> None:
    """The answer comes too late: its cost is recorded, and no activities appear."""
    await endpoint.tell("ok", latency=0.5)
    event = accepted()
    handling = asyncio.create_task(stage.handle(event))

    await wait_for(endpoint.busy, what="the call")
    async with stage.database.transaction() as connection:
        assert await decide_outcome(connection, event.job_id, event.run, "cancelled") == "cancelled"
    assert await handling == ()
    assert await database.fetchval("SELECT count(*) FROM customized_activities") == 0
    row = await database.fetchrow("SELECT state, error_code, prompt_tokens FROM generation_attempts")
    assert row is not None
    assert (row["state"], row["error_code"]) == ("failed", "run_ended")
    assert row["prompt_tokens"] > 0


async def test_a_run_given_up_says_so_again_when_redelivered(
    stage: StageUnderTest, endpoint: Endpoint, database: Pool
) -> None:
    """A worker that died after deciding `failed` and before publishing is repaired: the same fact, and no call."""
    event = accepted()
    error = Transient("llm_invalid_output", "rubbish")
    (failed,) = await stage.give_up(event, error)
    with pytest.raises(Permanent) as raised:
        await stage.handle(event)
    (again,) = await stage.give_up(event, raised.value)
    assert parse_event(again.value).id == parse_event(failed.value).id
    assert (await endpoint.calls())["received"] == 0


async def test_giving_up_takes_the_run_from_an_unfinished_attempt(
    stage: StageUnderTest, start_stage: Starter, endpoint: Endpoint, database: Pool
) -> None:
    """After JobFailed an answer that still comes is not saved: a run ends in one way."""
    await endpoint.tell("ok", latency=0.5)
    event = accepted()
    handling = asyncio.create_task(stage.handle(event))

    await wait_for(endpoint.busy, what="the call")
    (failed,) = await (await start_stage()).give_up(event, TimeoutError())
    assert parse_event(failed.value).type == "teamfit.job.failed.v1"
    assert await handling == ()
    assert await database.fetchval("SELECT count(*) FROM customized_activities") == 0
    row = await database.fetchrow("SELECT state, error_code, maybe_billed FROM generation_attempts")
    assert row is not None
    assert tuple(row) == ("failed", "timeout", True)


@pytest.mark.parametrize(
    ("organization_id", "team_id"), [("org-1", "team-2"), ("org-1", "nobody"), ("org-2", "team-1")]
)
async def test_another_organizations_team_is_as_unknown_as_none(
    stage: StageUnderTest, endpoint: Endpoint, database: Pool, organization_id: str, team_id: str
) -> None:
    """A job that names a team its organization does not have fails at once, with no call and nothing of that team."""
    with pytest.raises(Permanent, match=f"organization {organization_id} has no team {team_id}") as raised:
        await stage.handle(accepted(organization_id=organization_id, team_id=team_id))
    assert raised.value.code == "team_not_found"
    assert (await endpoint.calls())["received"] == 0
    assert await database.fetchval("SELECT count(*) FROM generation_attempts") == 0


async def test_a_broker_that_is_away_costs_nothing(stage: StageUnderTest, endpoint: Endpoint, database: Pool) -> None:
    """JobStarted goes out before the call, so no call is made that could not be reported."""
    stage.published.error = DependencyDown("broker", "away")
    event = accepted()
    with pytest.raises(DependencyDown):
        await stage.handle(event)
    assert (await endpoint.calls())["received"] == 0
    assert await database.fetchval("SELECT count(*) FROM generation_attempts") == 0
    stage.published.error = None
    assert await stage.handle(event)


async def test_an_answer_outlives_an_outage_of_postgres(start_stage: Starter, endpoint: Endpoint) -> None:
    """Postgres dies while the LLM works: the stage holds, and saves the same answer later without paying again."""
    with await asyncio.to_thread(start_postgres) as server:
        await upgrade(server.url)
        stage = await start_stage(database_url=server.url)
        async with stage.database.transaction() as connection:
            await connection.execute("INSERT INTO organizations (id, name) VALUES ('org-1', 'Ours')")
            await connection.execute("INSERT INTO teams (id, organization_id, name) VALUES ('team-1', 'org-1', 'Us')")
        await endpoint.tell("ok", latency=1.0)
        event = accepted()
        handling = asyncio.create_task(stage.handle(event))

        await wait_for(endpoint.busy, what="the call")
        await asyncio.to_thread(server.kill)
        with pytest.raises(DependencyDown):
            await handling
        await asyncio.to_thread(server.restart)
        assert await stage.handle(event)
        assert (await endpoint.calls())["received"] == 1
        await stage.database.close()


async def test_hundreds_of_jobs_are_in_flight_at_once(
    stage: StageUnderTest, endpoint: Endpoint, database: Pool
) -> None:
    """Three hundred jobs wait for the LLM side by side, and each gets its own three activities."""
    # Long enough that a busy machine begins most of them before the first ends.
    await endpoint.tell("ok", latency=8.0)
    events = [accepted() for _ in range(300)]
    handling = asyncio.gather(*(stage.handle(event) for event in events))

    async def all_in_flight() -> bool:
        return int((await endpoint.calls())["in_flight"]) >= 200

    await wait_for(all_in_flight, what="the calls to be in flight together")
    assert all(len(records) == 1 for records in await handling)
    counts = await database.fetch("SELECT count(*) AS n FROM customized_activities GROUP BY job_id")
    assert [row["n"] for row in counts] == [3] * 300
    assert (await endpoint.calls())["received"] == 300


async def test_two_workers_that_begin_the_same_runs_at_once_leave_one_holder(
    stage: StageUnderTest, database: Pool, team: str
) -> None:
    """However begins interleave, each gets its own attempt number and only the newest still holds the run."""
    events = [accepted() for _ in range(20)]
    attempts = [Attempts(stage.database, SystemClock(), stage.settings, Gate("e")) for _ in range(4)]
    rounds = await asyncio.gather(*(one.begin(handovers(*events)) for one in attempts), return_exceptions=True)
    for begun in rounds:
        assert isinstance(begun, list)
        assert all(isinstance(one, Attempt) for one in begun)
    rows = await database.fetch(
        "SELECT count(*) FILTER (WHERE state = 'started') AS holding FROM generation_attempts GROUP BY job_id"
    )
    assert [row["holding"] for row in rows] == [1] * 20
