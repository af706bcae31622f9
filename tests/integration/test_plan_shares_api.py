"""Shares of plans over HTTP and by command: what one does, both do, and both say first whom it reaches."""

import json
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import pytest

from tests.api_server import api_settings, asked, bearer, serving
from tests.commands import Run
from tests.conftest import Pool
from tests.integration.quota_scene import add_organization

_ROUTE: Final = "/api/ops/organizations/plans"
_NONE: Final = {
    **dict.fromkeys(("weight", "max_in_flight", "requests_per_minute", "max_waiting", "budget", "budget_kind")),
    "plan": "team",
}


@pytest.fixture
async def api(database: Pool, database_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """An API with three organizations of the plan `team`, one of them with a weight of its own."""
    for name in ("acme", "birch", "cedar"):
        await add_organization(database, name)
    await database.execute("UPDATE subscriptions SET weight = 9 WHERE organization_id = 'birch'")
    async with serving(api_settings(database_url=database_url)) as session:
        session.headers.update(bearer("ops", "operator"))
        yield session


async def test_a_share_says_whom_it_reaches_and_is_set(
    api: aiohttp.ClientSession, database: Pool, teamfit: Run
) -> None:
    """Values before and after, organizations, and those that have their own; then it is so, and then forgotten."""
    wish = {"plan": " team ", "weight": 2.5, "max_in_flight": 20}
    status, effects = await asked(api.post(f"{_ROUTE}/set/effects", json=wish))
    set_values = _NONE | {"weight": 2.5, "max_in_flight": 20}
    assert (status, effects["before"], effects["after"]) == (200, None, set_values)
    assert (effects["organizations"], effects["with_their_own"], effects["waiting"]) == (3, 1, 0)
    assert await asked(api.get(_ROUTE)) == (200, {"plans": []})
    assert await asked(api.post(f"{_ROUTE}/set", json=wish)) == (200, set_values)
    uncapped = json.loads((await teamfit("plan", "set", "team", "--no-cap", "--dry-run", "--json")).stdout)
    assert (uncapped["before"], uncapped["after"]) == (set_values, set_values | {"max_in_flight": None})
    said = await teamfit("plan", "forget", "team", "--dry-run")
    assert "Now: weight 2.5, max in flight 20." in said.stdout
    assert "Then: weight 1 and no limits." in said.stdout
    assert "3 organizations have the plan, 1 of them values of their own" in said.stdout
    assert await asked(api.get(_ROUTE)) == (200, {"plans": [set_values]})
    status, effects = await asked(api.post(f"{_ROUTE}/forget/effects", json={"plan": "team"}))
    assert (status, effects["before"], effects["after"]) == (200, set_values, None)
    assert await asked(api.post(f"{_ROUTE}/forget", json={"plan": "team"})) == (200, {"plan": "team"})
    assert await asked(api.get(_ROUTE)) == (200, {"plans": []})
    log = await database.fetch("SELECT action, face, effects FROM operator_actions ORDER BY at")
    assert [(one["action"], one["face"]) for one in log] == [("plan.set", "api"), ("plan.forget", "api")]
    assert [json.loads(one["effects"])["organizations"] for one in log] == [3, 3]


async def test_a_share_that_changes_nothing_or_cannot_be_is_refused(api: aiohttp.ClientSession, database: Pool) -> None:
    """Nothing given, a cap and none, a budget without prices, a plan that nothing is set for, a wrong field."""
    wrong: tuple[dict[str, object], ...] = (
        {},
        {"max_in_flight": 3, "no_cap": True},
        {"budget": 1_000_000},
        {"weight": 0},
        {"budget_kind": "strict"},
        {"colour": "red"},
    )
    for body in wrong:
        for path in ("/set", "/set/effects"):
            status, problem = await asked(api.post(_ROUTE + path, json={"plan": "team", **body}))
            assert (status, problem["code"]) == (422, "invalid_request"), body
    for path in ("/forget", "/forget/effects"):
        status, problem = await asked(api.post(_ROUTE + path, json={"plan": "gold"}))
        assert (status, problem["code"]) == (404, "plan_not_found")
    assert await database.fetchval("SELECT count(*) FROM plan_shares") == 0
    log = await database.fetch("SELECT action, outcome FROM operator_actions ORDER BY at")
    assert [tuple(one) for one in log] == [("plan.set", "refused")] * 3 + [("plan.forget", "refused")]


async def test_a_budget_is_hard_unless_it_is_said_otherwise(api: aiohttp.ClientSession, database: Pool) -> None:
    """What the effects say of it is what is set."""
    await database.execute("INSERT INTO llm_prices VALUES ('m', now(), 1, 1, 'USD')")
    wish = {"plan": "team", "budget": 50_000_000}
    _, effects = await asked(api.post(f"{_ROUTE}/set/effects", json=wish))
    status, share = await asked(api.post(f"{_ROUTE}/set", json=wish))
    assert (status, share, share["budget_kind"]) == (200, effects["after"], "hard")
