"""A month's budget at admission, by command, and how its marks are told."""

import json
from collections.abc import AsyncIterator

import pytest

from consumers.quota.admission import Admissions
from infra.postgres import Database
from producers.schedule.budgets import Budgets
from streams.jobs.events import JobAccepted, JobRejected
from tests.conftest import Pool
from tests.integration.quota_scene import NOON, PERIOD, ManualClock, add_organization, facts, request
from tests.integration.test_operator_commands import Run, teamfit  # noqa: F401 - a fixture


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Database]:
    """A stage's connections."""
    opened = Database(database_url, size=4)
    yield opened
    await opened.close()


async def set_budget(database: Pool, budget: int | None, kind: str | None = None) -> None:
    """Give acme a budget of its own."""
    await database.execute(
        "UPDATE subscriptions SET budget = $1, budget_kind = $2 WHERE organization_id = 'acme'", budget, kind
    )


async def spend(database: Pool, cost: int, period: str = PERIOD) -> None:
    """Have the month's calls cost so much."""
    await database.execute(
        "INSERT INTO llm_usage"
        " (organization_id, period, calls, prompt_tokens, completion_tokens, maybe_billed_calls, cost)"
        " VALUES ('acme', $1, 1, 1, 1, 0, $2) ON CONFLICT (organization_id, period) DO UPDATE SET cost = $2",
        *(period, cost),
    )


@pytest.mark.parametrize(
    ("own", "plans", "spent", "admitted"),
    [
        ((100, "hard"), None, 99, True),
        ((100, "hard"), None, 100, False),
        ((100, None), None, 100, False),
        ((100, "soft"), None, 1_000, True),
        ((None, None), (100, None), 100, False),
        ((None, None), (100, "soft"), 100, True),
        ((200, None), (100, "soft"), 150, True),
        ((200, None), (100, "soft"), 200, False),
        ((0, "hard"), None, 0, False),
        ((None, None), None, 10**12, True),
    ],
)
async def test_a_run_is_admitted_while_a_hard_budget_has_something_left(
    database: Pool,
    stage: Database,
    own: tuple[int | None, str | None],
    plans: tuple[int, str | None] | None,
    spent: int,
    *,
    admitted: bool,
) -> None:
    """Its own goes before its plan's; a month before does not count."""
    await add_organization(database)
    await set_budget(database, *own)
    if plans:
        await database.execute("INSERT INTO plan_shares (plan, budget, budget_kind) VALUES ('team', $1, $2)", *plans)
    await spend(database, 10**15, "2031-03")
    await spend(database, spent)
    (fact,) = facts(await Admissions(stage, ManualClock(), trust_threshold=0.5).admit([request()]))
    assert isinstance(fact, JobAccepted if admitted else JobRejected)
    if isinstance(fact, JobRejected):
        assert fact.data.code == "budget_exceeded"


async def test_each_mark_is_told_once(database: Pool, stage: Database) -> None:
    """At 80 and at 100 %; a raised budget has marks of its own."""
    await add_organization(database)
    await set_budget(database, 1_000, "soft")
    told = Budgets(stage, ManualClock(NOON)).tell
    for cost, expected in ((799, 0), (800, 1), (900, 0), (1_000, 1), (5_000, 0)):
        await spend(database, cost)
        assert await told() == expected
    await set_budget(database, 6_000)
    assert await told() == 1
    rows = await database.fetch("SELECT percent, budget, cost FROM budget_marks ORDER BY percent")
    assert [tuple(row) for row in rows] == [(80, 6_000, 5_000), (100, 1_000, 1_000)]


async def test_a_budget_is_set_and_shown_by_command(teamfit: Run, database: Pool) -> None:  # noqa: F811
    """In whole units of money; without any price it is refused, since nothing could be counted."""
    await add_organization(database)
    refused = await teamfit("organization", "set", "acme", "--budget", "50")
    assert (refused.exit_code, "teamfit llm prices set" in refused.stderr) == (1, True)
    await teamfit("llm", "prices", "set", "m", "1", "1")
    wrong = await teamfit("organization", "set", "acme", "--budget", "much")
    assert (wrong.exit_code, "budget: 'much' is no number" in wrong.stderr) == (1, True)
    await teamfit("organization", "set", "acme", "--budget", "50.25", "--budget-kind", "soft")
    shown = json.loads((await teamfit("organization", "show", "acme", "--json")).stdout)
    assert (shown["budget"], shown["budget_kind"]) == (50_250_000, "soft")
    assert "50.25" in (await teamfit("organization", "show", "acme")).stdout
    await teamfit("organization", "set", "acme", "--as-plan")
    await teamfit("plan", "set", "team", "--budget", "7")
    (plan,) = json.loads((await teamfit("plan", "list", "--json")).stdout)
    assert (plan["budget"], plan["budget_kind"]) == (7_000_000, None)
    assert json.loads((await teamfit("organization", "show", "acme", "--json")).stdout)["budget"] is None
    assert "7.00" in (await teamfit("plan", "list")).stdout
