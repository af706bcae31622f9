"""Organizations over HTTP and in the console: what the command does, both do."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.api_server import api_settings, asked, bearer, serving
from tests.conftest import Pool
from tests.integration.quota_scene import add_organization

_ROUTE = "/api/ops/organizations"


@pytest.fixture
async def api(database: Pool, database_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """An API with five organizations."""
    for name in ("acme", "birch", "cedar", "dogwood", "elm"):
        await add_organization(database, name, monthly_quota=50)
    async with serving(api_settings(database_url=database_url)) as session:
        session.headers.update(bearer("ops", "operator"))
        yield session


async def test_pages_have_each_organization_once(api: aiohttp.ClientSession) -> None:
    """In the order of their IDs; a name narrows them, whatever its case."""
    found: list[str] = []
    query: dict[str, str] = {"limit": "2"}
    while True:
        status, page = await asked(api.get(_ROUTE, params=query))
        assert status == 200
        found += [one["id"] for one in page["organizations"]]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert found == ["acme", "birch", "cedar", "dogwood", "elm"]
    _, page = await asked(api.get(_ROUTE, params={"name": "DOG"}))
    assert [one["id"] for one in page["organizations"]] == ["dogwood"]


async def test_an_organization_is_changed_and_its_ledger_counted_again(
    api: aiohttp.ClientSession, database: Pool
) -> None:
    """Weight and cap hold from then on, and a counter that was changed by hand is what the ledger says."""
    status, changed = await asked(
        api.post(f"{_ROUTE}/set", json={"organization_id": "acme", "weight": 3, "max_in_flight": 7})
    )
    assert (status, changed["share"], changed["cap"], changed["monthly_quota"]) == (200, 3.0, 7, 50)
    status, changed = await asked(api.post(f"{_ROUTE}/set", json={"organization_id": "acme", "as_plan": True}))
    assert (status, changed["weight"], changed["cap"]) == (200, None, None)
    await database.execute("INSERT INTO quota_usage (organization_id, period, charged) VALUES ('acme', '2031-04', 9)")
    _, books = await asked(api.get(f"{_ROUTE}/books", params={"organization_id": "acme"}))
    assert any(one["differs"] for one in books["months"])
    status, books = await asked(api.post(f"{_ROUTE}/recount", json={"organization_id": "acme"}))
    assert (status, [one["differs"] for one in books["months"]]) == (200, [False] * len(books["months"]))
    log = await database.fetch("SELECT action, face FROM operator_actions ORDER BY at")
    assert [tuple(one) for one in log] == [
        ("organization.set", "api"),
        ("organization.set", "api"),
        ("quota.repair", "api"),
    ]


async def test_an_organization_and_a_team_are_added_once(api: aiohttp.ClientSession, database: Pool) -> None:
    """The same again changes nothing; with other values it is refused, and so is a team of none."""
    new = {"organization_id": " hazel ", "monthly_quota": 7}
    for _ in range(2):
        status, added = await asked(api.post(f"{_ROUTE}/add", json=new))
        assert (status, added["id"], added["name"], added["plan"]) == (200, "hazel", "hazel", "team")
        assert (added["monthly_quota"], added["trust_score"], added["status"]) == (7, 1.0, "active")
    team = {"team_id": "hazel-core", "organization_id": "hazel", "size": 9}
    for _ in range(2):
        status, added = await asked(api.post(f"{_ROUTE}/teams/add", json=team))
        assert (status, added["id"], added["name"], added["size"]) == (200, "hazel-core", "hazel-core", 9)
    for path, wrong in (
        ("/add", {**new, "monthly_quota": 8}),
        ("/add", {**new, "status": "activ"}),
        ("/add", {**new, "organization_id": "e" * 65}),
        ("/teams/add", {**team, "size": 0}),
        ("/teams/add", {**team, "organization_id": "acme"}),
    ):
        status, problem = await asked(api.post(_ROUTE + path, json=wrong))
        assert (status, problem["code"]) == (422, "invalid_request"), wrong
    status, problem = await asked(api.post(f"{_ROUTE}/teams/add", json={**team, "organization_id": "unknown"}))
    assert (status, problem["code"]) == (404, "organization_not_found")
    log = await database.fetch("SELECT action, target, face FROM operator_actions WHERE outcome = 'done' ORDER BY at")
    assert [tuple(one) for one in log] == [
        *[("organization.add", "organization hazel", "api")] * 2,
        *[("team.add", "team hazel-core", "api")] * 2,
    ]


async def test_what_is_none_is_refused(api: aiohttp.ClientSession) -> None:
    """An organization that there is not, a budget without prices, a field that is misspelt."""
    for method, path in (("GET", "/books"), ("POST", "/set"), ("POST", "/recount")):
        body = {"organization_id": "unknown"}
        status, problem = await asked(
            api.request(method, _ROUTE + path, **({"params": body} if method == "GET" else {"json": body}))  # type: ignore[arg-type]  # one of the two
        )
        assert (status, problem["code"]) == (404, "organization_not_found"), path
    for wrong in ({"budget": 1_000_000}, {"colour": "red"}, {"weight": 0}):
        status, problem = await asked(api.post(f"{_ROUTE}/set", json={"organization_id": "acme", **wrong}))
        assert (status, problem["code"]) == (422, "invalid_request"), wrong
