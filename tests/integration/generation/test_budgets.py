"""A month's budget: each call reserves the most that it may cost, and none begins that does not fit."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from consumers.generation.attempts import Attempts
from consumers.generation.gate import Gate
from consumers.generation.runs import Attempt, Failure, Unaffordable
from infra.clock import SystemClock
from infra.errors import Permanent, Postponed
from infra.settings import Settings
from tests.integration.generation.conftest import Endpoint, Pool, StageUnderTest, Starter, accepted, handovers
from tests.integration.generation.test_spend import COMPLETION

MONTH_AGO = datetime.now(UTC) - timedelta(days=40)
ASKED = str(Settings.model_fields["model"].default)
# 1 micro-unit for each token, so that costs are counts.
PRICE = 1_000_000
ONE_CALL = 20_000

SetBudget = Callable[..., Awaitable[None]]


@pytest.fixture
async def budget(database: Pool, team: str) -> SetBudget:
    """Give the organization a budget, and its model a price."""

    async def give(units: int, kind: str | None = "hard", *, model: str | None = ASKED) -> None:
        await database.execute(
            "INSERT INTO subscriptions (organization_id, plan, status, monthly_quota, priority, budget, budget_kind)"
            " VALUES ('org-1', 'team', 'active', 1000, false, $1, $2) ON CONFLICT (organization_id)"
            " DO UPDATE SET budget = $1, budget_kind = $2",
            *(units, kind),
        )
        if model is not None:
            await database.execute(
                "INSERT INTO llm_prices VALUES ($1, $2, $3, $3, 'USD') ON CONFLICT DO NOTHING", model, MONTH_AGO, PRICE
            )

    return give


def attempts_of(stage: StageUnderTest) -> Attempts:
    """Return the attempts as one more worker has them."""
    return Attempts(stage.database, SystemClock(), stage.settings, Gate("e"))


async def spent(database: Pool) -> int:
    """Return what the month has cost."""
    return int(await database.fetchval("SELECT coalesce(sum(cost), 0) FROM llm_usage"))


async def reserved(database: Pool) -> int:
    """Return what calls under way hold."""
    return int(
        await database.fetchval("SELECT coalesce(sum(reserved), 0) FROM generation_attempts WHERE state = 'started'")
    )


async def test_many_workers_never_begin_more_than_the_budget_holds(
    start_stage: Starter, database: Pool, budget: SetBudget
) -> None:
    """Spent and reserved together stay within it, whichever worker comes first; what does not fit waits."""
    await budget(10 * ONE_CALL)
    stage = await start_stage()
    begun = await asyncio.gather(
        *(attempts_of(stage).begin(handovers(*(accepted() for _ in range(5)))) for _ in range(8))
    )
    calls = [one for batch in begun for one in batch if isinstance(one, Attempt)]
    others = [one for batch in begun for one in batch if not isinstance(one, Attempt)]
    held = await reserved(database)
    assert 0 < held <= 10 * ONE_CALL
    assert held + held // len(calls) > 10 * ONE_CALL, "another one would have fitted"
    assert {one.verdict for one in others if isinstance(one, Unaffordable)} == {"held"}
    # What they truly cost comes back to the budget, and the next may begin.
    await attempts_of(stage).save([(one, COMPLETION) for one in calls])
    assert (await reserved(database), await spent(database)) == (0, 100 * len(calls))
    assert isinstance((await attempts_of(stage).begin(handovers(accepted())))[0], Attempt)


@pytest.mark.parametrize("how", ["discarded", "failed", "killed", "given up", "another run"])
async def test_a_reservation_ends_with_its_call(
    start_stage: Starter, database: Pool, budget: SetBudget, how: str
) -> None:
    """Whatever becomes of the call: nothing is held for ever, and what may have been billed is spent."""
    await budget(3 * ONE_CALL)
    stage, event = await start_stage(), accepted()
    attempts = attempts_of(stage)
    (attempt,) = await attempts.begin(handovers(event))
    assert isinstance(attempt, Attempt)
    held = await reserved(database)
    if how == "discarded":
        await attempts.discard([attempt])
    elif how == "failed":
        await attempts.fail([Failure(attempt, "llm_timeout", None, maybe_billed=True)])
    elif how == "given up":
        await attempts.give_up(event.job_id, 1, error_code="timeout")
    else:
        (again,) = await attempts.begin(handovers(accepted(job_id=event.job_id, run=2 if how == "another run" else 1)))
        assert isinstance(again, Attempt)
        await attempts.discard([again])
    assert await reserved(database) == 0
    assert await spent(database) == (0 if how == "discarded" else stage.settings.max_completion_tokens)
    assert await spent(database) <= held


async def test_a_dead_workers_reservation_counts_as_spent_when_its_time_is_over(
    start_stage: Starter, database: Pool, budget: SetBudget
) -> None:
    """Nobody took the run over: its call may have been billed, and nothing waits for it."""
    await budget(ONE_CALL)
    stage = await start_stage()
    attempts = attempts_of(stage)
    assert isinstance((await attempts.begin(handovers(accepted())))[0], Attempt)
    (waits,) = await attempts.begin(handovers(accepted()))
    assert isinstance(waits, Unaffordable)
    assert waits.verdict == "held"
    await database.execute("UPDATE generation_attempts SET deadline = clock_timestamp()")
    (stopped,) = await attempts.begin(handovers(accepted()))
    assert isinstance(stopped, Unaffordable)
    assert stopped.verdict == "exceeded"


async def test_a_hard_budget_stops_and_a_higher_one_lets_go_on(
    start_stage: Starter, database: Pool, budget: SetBudget, endpoint: Endpoint
) -> None:
    """The job fails by code, no call is made, and the operator reads what to do."""
    await budget(100)
    stage, event = await start_stage(), accepted()
    with pytest.raises(Permanent, match="teamfit organization set org-1 --budget") as raised:
        await stage.handle(event)
    assert raised.value.code == "budget_exceeded"
    assert (
        (await endpoint.calls())["received"],
        await database.fetchval("SELECT count(*) FROM generation_attempts"),
    ) == (
        0,
        0,
    )
    await budget(10 * ONE_CALL)
    assert await stage.handle(event)
    assert 0 < await spent(database) < ONE_CALL


async def test_what_does_not_fit_beside_calls_under_way_comes_again(start_stage: Starter, budget: SetBudget) -> None:
    """It costs the run no attempt."""
    await budget(ONE_CALL)
    stage = await start_stage()
    assert isinstance((await attempts_of(stage).begin(handovers(accepted())))[0], Attempt)
    with pytest.raises(Postponed, match="calls under way hold the rest"):
        await stage.handle(accepted())


async def test_a_soft_budget_stops_nothing(start_stage: Starter, database: Pool, budget: SetBudget) -> None:
    """It is told, and what is spent goes on being counted."""
    await budget(1, "soft")
    assert await (await start_stage()).handle(accepted())
    assert await spent(database) > 1


@pytest.mark.parametrize("kind", ["hard", "soft"])
async def test_a_model_without_a_price_is_refused_where_a_budget_is_set(
    start_stage: Starter, endpoint: Endpoint, budget: SetBudget, kind: str
) -> None:
    """It is never counted as free; the sentence names the command."""
    await budget(10 * ONE_CALL, kind, model=None)
    with pytest.raises(Permanent, match="teamfit llm prices set") as raised:
        await (await start_stage()).handle(accepted())
    assert raised.value.code == "llm_price_missing"
    assert (await endpoint.calls())["received"] == 0


@pytest.mark.parametrize(
    ("priced", "asked", "fits"),
    [
        ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", True),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini", True),
        ("claude-x", "claude-x@20250219", True),
        ("claude-x", "claude-x-20250219", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("model", "model-2407", False),
        ("model", "model-20241399", False),
    ],
)
async def test_a_dated_name_has_the_price_of_its_base_name(
    start_stage: Starter, budget: SetBudget, priced: str, asked: str, *, fits: bool
) -> None:
    """A date at the end, and nothing else, is left out."""
    await budget(10 * ONE_CALL, model=priced)
    (begun,) = await attempts_of(await start_stage(model=asked)).begin(handovers(accepted()))
    assert isinstance(begun, Attempt) == fits


async def test_the_cost_is_of_the_answers_model_else_of_the_one_that_was_asked(
    start_stage: Starter, database: Pool, budget: SetBudget
) -> None:
    """A gateway that answers by another name is not free."""
    await budget(10 * ONE_CALL)
    stage = await start_stage()
    attempts = attempts_of(stage)
    for cost in (100, 300):
        (one,) = await attempts.begin(handovers(accepted()))
        assert isinstance(one, Attempt)
        await attempts.save([(one, COMPLETION)])  # by model m
        assert await spent(database) == cost
        await database.execute(
            "INSERT INTO llm_prices VALUES ('m', $1, $2, $2, 'USD') ON CONFLICT DO NOTHING", MONTH_AGO, 2 * PRICE
        )
