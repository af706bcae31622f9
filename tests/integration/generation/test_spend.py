"""What the calls cost: a cap for each job, and a running total for each organization that counts nothing twice."""

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from consumers.generation.answer import read
from consumers.generation.attempts import Attempts
from consumers.generation.gate import Gate
from consumers.generation.runs import Attempt, Failure
from infra.clock import SystemClock
from infra.errors import DependencyDown, Permanent, Transient
from infra.local.llm.server import MODEL
from streams.delivery.deliveries import Delivery
from streams.jobs.completion import Usage
from streams.jobs.events import JobFailed, JobId, parse_event
from tests.integration.generation.conftest import Endpoint, Pool, StageUnderTest, Starter, accepted, end_hold, handovers
from tests.waiting import wait_for

_ANSWER = (
    b'{"model": "m", "usage": {"prompt_tokens": 30, "completion_tokens": 70},'
    b' "choices": [{"message": {"content": "%s"}}]}'
)
_ACTIVITY = (
    '{"title": "t", "description": "d", "duration_minutes": 5, "group_size": {"min": 1, "max": 2}, "materials": [], '
    '"steps": ["s"], "objective": "o"}'
)
_CONTENT = f'{{"activities": [{", ".join([_ACTIVITY] * 3)}]}}'.replace('"', r"\"").encode()
COMPLETION = read(_ANSWER.replace(b"%s", _CONTENT), fallback_model=MODEL)

Total = tuple[int, int, int, int]


async def totals(database: Pool) -> dict[str, Total]:
    """Return calls, tokens of prompts and of answers, and perhaps billed calls, by organization; this month's.

    They are what the attempts add up to, whatever happened to them.
    """
    period = datetime.now(UTC).strftime("%Y-%m")
    rows = await database.fetch(
        "SELECT organization_id, period, calls, prompt_tokens, completion_tokens, maybe_billed_calls FROM llm_usage"
        " WHERE period = $1",
        period,
    )
    counted = {row["organization_id"]: (*tuple(row)[2:],) for row in rows}
    summed = await database.fetch(
        "SELECT organization_id, count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0),"
        " count(*) FILTER (WHERE maybe_billed) FROM generation_attempts WHERE state <> 'started' GROUP BY 1"
    )
    assert counted == {row["organization_id"]: (*tuple(row)[1:],) for row in summed}
    return {name: (int(a), int(b), int(c), int(d)) for name, (a, b, c, d) in counted.items()}


def attempts_of(stage: StageUnderTest) -> Attempts:
    """Return the attempts as one more worker has them."""
    return Attempts(stage.database, SystemClock(), stage.settings, Gate("e"))


async def begun(attempts: Attempts) -> Attempt:
    """Begin an attempt at a new job."""
    (attempt,) = await attempts.begin(handovers(accepted()))
    assert isinstance(attempt, Attempt)
    return attempt


async def test_a_redelivered_job_is_counted_once(stage: StageUnderTest, start_stage: Starter, database: Pool) -> None:
    """The same delivery in two workers, one after the other, costs one call."""
    event = accepted()
    await stage.handle(event)
    first = await totals(database)
    assert first["org-1"][0] == 1
    assert first["org-1"][1] > 0
    assert first["org-1"][3] == 0
    await (await start_stage()).handle(event)
    assert await totals(database) == first


async def test_a_call_is_counted_when_it_ends(stage: StageUnderTest, endpoint: Endpoint, database: Pool) -> None:
    """An attempt that is under way is in no total yet."""
    await endpoint.tell("ok", latency=0.5)
    handling = asyncio.create_task(stage.handle(accepted()))
    await wait_for(endpoint.busy, what="the call")
    assert await totals(database) == {}
    await handling
    assert (await totals(database))["org-1"][0] == 1


async def test_records_that_are_repeated_count_nothing_twice(stage: StageUnderTest, database: Pool) -> None:
    """A commit whose confirmation was lost is repeated; so is a failure, and giving up."""
    attempts = attempts_of(stage)
    saved, failed, given_up = [await begun(attempts) for _ in range(3)]
    for _ in range(2):
        await attempts.save([(saved, COMPLETION)])
        await attempts.fail([Failure(failed, "llm_invalid_output", Usage("m", 1, 2))])
        await attempts.give_up(given_up.job_id, given_up.run, error_code="timeout")
        assert await totals(database) == {"org-1": (3, 31, 72, 1)}


async def test_a_late_answer_adds_its_cost_to_a_call_that_was_counted(stage: StageUnderTest, database: Pool) -> None:
    """A zombie's answer is paid for: its tokens are added once, and its call is not counted again."""
    attempts, event = attempts_of(stage), accepted()
    (zombie,) = await attempts.begin(handovers(event))
    (winner,) = await attempts.begin(handovers(event))
    assert isinstance(zombie, Attempt)
    assert isinstance(winner, Attempt)
    assert await totals(database) == {"org-1": (1, 0, 0, 1)}
    await attempts.save([(winner, COMPLETION)])
    for _ in range(2):
        assert await attempts.save([(zombie, COMPLETION)]) == [None]
        assert await totals(database) == {"org-1": (2, 60, 140, 1)}


async def test_an_attempt_that_made_no_call_is_in_no_total(stage: StageUnderTest, database: Pool) -> None:
    """Nothing was called for a team that does not exist."""
    with pytest.raises(Permanent):
        await stage.handle(accepted(team_id="nobody"))
    assert await totals(database) == {}


async def test_workers_that_record_side_by_side_lose_no_call(stage: StageUnderTest, database: Pool) -> None:
    """Twenty workers add to two organizations' totals at once."""
    workers = [attempts_of(stage) for _ in range(20)]

    async def work(attempts: Attempts) -> None:
        for _ in range(5):
            events = [accepted(), accepted(organization_id="org-2", team_id="team-2")]
            started = [one for one in await attempts.begin(handovers(*events)) if isinstance(one, Attempt)]
            await attempts.save([(one, COMPLETION) for one in started])

    await asyncio.gather(*(work(attempts) for attempts in workers))
    assert await totals(database) == dict.fromkeys(("org-1", "org-2"), (100, 3_000, 7_000, 0))


async def test_a_job_that_has_spent_its_cap_makes_no_further_call(
    start_stage: Starter, endpoint: Endpoint, database: Pool, team: str
) -> None:
    """Rubbish is paid for too. What a job's attempts cost counts over its runs, so a replay needs a higher cap."""
    await endpoint.tell("rubbish")
    stage = await start_stage(max_tokens_per_job=20)
    event = accepted()
    with pytest.raises(Transient):
        await stage.handle(event)
    await endpoint.tell("ok")
    for again in (event, accepted(job_id=event.job_id, run=2)):
        with pytest.raises(Permanent, match="TEAMFIT_MAX_TOKENS_PER_JOB") as raised:
            await stage.handle(again)
        assert raised.value.code == "spend_cap_reached"
    assert (
        (await endpoint.calls())["received"] == await database.fetchval("SELECT count(*) FROM generation_attempts") == 1
    )
    # Another job has a cap of its own, and a higher one lets the first go on.
    assert await stage.handle(accepted())
    assert await (await start_stage()).handle(event)


async def test_a_call_of_unknown_cost_counts_as_a_full_answer(
    start_stage: Starter, endpoint: Endpoint, team: str
) -> None:
    """An endpoint that resets each connection may bill each call, so the cap holds there too."""
    await endpoint.tell("reset")
    stage = await start_stage(max_tokens_per_job=1_000, max_completion_tokens=500)
    event = accepted()
    for _ in range(2):
        with pytest.raises(DependencyDown):
            await stage.handle(event)
        await end_hold(stage)
    with pytest.raises(Permanent, match="has used 1000 tokens of 1000"):
        await stage.handle(event)


async def test_without_a_cap_nothing_is_refused(start_stage: Starter, database: Pool, team: str) -> None:
    """0 turns it off; with one, the tokens of a job may be more than a number of four bytes holds."""
    stage, job_id = await start_stage(max_tokens_per_job=0), JobId(uuid4())
    await database.execute(
        "INSERT INTO generation_attempts"
        " (job_id, run, attempt, token, state, started_at, prompt_tokens, completion_tokens)"
        " VALUES ($1, 1, 1, gen_random_uuid(), 'failed', now(), 2000000000, 2000000000)",
        job_id,
    )
    assert await stage.handle(accepted(job_id=job_id))
    with pytest.raises(Permanent, match=r"has used 4\d{9} tokens"):
        await (await start_stage()).handle(accepted(job_id=job_id, run=2))


async def test_a_capped_job_fails_and_says_why(start_stage: Starter, database: Pool, team: str) -> None:
    """The customer reads the code; the original is kept for a replay under a higher cap."""
    stage, event = await start_stage(max_tokens_per_job=1), accepted()
    attempts = attempts_of(stage)
    (attempt,) = await attempts.begin(handovers(event))
    assert isinstance(attempt, Attempt)
    await attempts.fail([Failure(attempt, "llm_invalid_output", Usage("m", 1, 2))])
    await stage.wrapped().process(Delivery("job-accepted", event.key, event.encode()))
    failed, letter = stage.published.records
    fact = parse_event(failed.value)
    assert isinstance(fact, JobFailed)
    assert fact.data.code == "spend_cap_reached"
    assert letter.topic == "dead-letters"
    assert await database.fetchval("SELECT outcome FROM job_outcomes") == "failed"
