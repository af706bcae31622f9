"""The LLM's endpoints and prices over HTTP and by command: what one does, both do."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Final

import aiohttp
import pytest

from infra.operations.job_search import COUNTED
from tests.api_server import api_settings, asked, bearer, serving
from tests.commands import Run
from tests.conftest import Pool
from tests.integration.test_prices import begin, end

_ROUTE: Final = "/api/ops/llm"
_LLM: Final = "https://llm/v1"


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """An API on the test's own database."""
    async with serving(api_settings(database_url=database_url)) as session:
        session.headers.update(bearer("ops", "operator"))
        yield session


async def _logged(database: Pool) -> list[tuple[str, str, str, str]]:
    rows = await database.fetch("SELECT action, target, face, outcome FROM operator_actions ORDER BY at")
    return [(row["action"], row["target"], row["face"], row["outcome"]) for row in rows]


async def test_what_is_known_of_an_endpoint_is_shown(api: aiohttp.ClientSession, database: Pool) -> None:
    """Its use, its gate, why it is held, and how it is asked; the hours bound the use alone."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    for model, at in (("m", hour), ("old", hour - timedelta(hours=30))):
        await database.execute("INSERT INTO llm_hours VALUES ($1, $2, $3, 4, 1, 0, 2, 10, 20)", _LLM, model, at)
    await database.execute("INSERT INTO llm_gate VALUES ($1, now() + interval '1 hour', 'llm_rate_limited')", _LLM)
    await database.execute(
        "INSERT INTO llm_dialects VALUES ($1, 'm', 'auto', 'prompt', 'max_tokens', true, 'more was refused', now())",
        _LLM,
    )
    await database.execute(
        "INSERT INTO llm_holds (endpoint, model, credential, blame, code, sentence, next_probe_at)"
        " VALUES ($1, 'm', 'c', 'account', 'llm_insufficient_quota', 'has no credit', now())",
        _LLM,
    )
    status, found = await asked(api.get(_ROUTE))
    assert (status, [(one["model"], one["calls"]) for one in found["endpoints"]]) == (200, [("m", 4)])
    assert [one["reason"] for one in found["gates"]] == ["llm_rate_limited"]
    assert [one["sentence"] for one in found["holds"]] == ["has no credit"]
    assert [one["form"] for one in found["dialects"]] == ["prompt"]
    _, found = await asked(api.get(_ROUTE, params={"hours": "48"}))
    assert [one["model"] for one in found["endpoints"]] == ["m", "old"]
    assert (await asked(api.get(_ROUTE, params={"hours": "0"})))[0] == 422


async def test_a_gate_is_opened_before_its_time(api: aiohttp.ClientSession, database: Pool) -> None:
    """What would be opened is said first; a repeat opens nothing; an endpoint without a gate is not known."""
    status, answer = await asked(api.post(f"{_ROUTE}/gates/open", json={}))
    assert (status, answer) == (200, {"closed": [], "opened": []})
    await database.execute("INSERT INTO llm_gate VALUES ($1, now() + interval '1 hour', 'llm_rate_limited')", _LLM)
    status, answer = await asked(api.post(f"{_ROUTE}/gates/open/effects", json={"endpoint": _LLM}))
    assert (status, [one["endpoint"] for one in answer["closed"]], answer["opened"]) == (200, [_LLM], [])
    assert await database.fetchval("SELECT closed_until > now() FROM llm_gate")
    for opened in ([_LLM], []):
        status, answer = await asked(api.post(f"{_ROUTE}/gates/open", json={"endpoint": _LLM}))
        assert (status, answer["opened"]) == (200, opened)
    assert not await database.fetchval("SELECT closed_until > now() FROM llm_gate")
    status, problem = await asked(api.post(f"{_ROUTE}/gates/open", json={"endpoint": "https://other"}))
    assert (status, problem["code"]) == (404, "control_subject_not_found")
    assert await _logged(database) == [("llm.gate.open", f"endpoint {_LLM}", "api", "done")]


async def test_a_dialect_is_forgotten(api: aiohttp.ClientSession, database: Pool) -> None:
    """One endpoint's alone, or all; the answer says which."""
    for endpoint in (_LLM, "https://b", "https://c"):
        await database.execute(
            "INSERT INTO llm_dialects VALUES ($1, 'm', 'auto', 'prompt', 'max_tokens', true, 'refused', now())",
            endpoint,
        )
    for body, forgotten in (({"endpoint": _LLM}, {_LLM}), ({}, {"https://b", "https://c"}), ({}, set())):
        status, answer = await asked(api.post(f"{_ROUTE}/dialects/forget", json=body))
        assert (status, {one["endpoint"] for one in answer["forgotten"]}) == (200, forgotten)
    assert await database.fetchval("SELECT count(*) FROM llm_dialects") == 0


async def test_a_price_says_what_follows_and_is_set(api: aiohttp.ClientSession, database: Pool, teamfit: Run) -> None:
    """The calls that it would price, the price before it, and when the next one holds; then it is so."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for model in ("small", "small-2025-01-31", "other", None):
        call = await begin(database, at=today)
        await end(database, call, "saved", model, 1_000_000 if model else None, None, unknown=model is None)
    _, found = await asked(api.get(f"{_ROUTE}/prices"))
    counted = {one["model"]: one["calls"] for one in found["without_price"]}
    assert counted == {name: {"number": 1, "more": False} for name in ("", "other", "small", "small-2025-01-31")}
    wish = {"model": "small", "holds_from": today.isoformat(), "input_price": 150_000, "output_price": 600_000}
    status, effects = await asked(api.post(f"{_ROUTE}/prices/effects", json=wish))
    assert (status, effects["calls_priced"]["number"], effects["before"]) == (200, 3, None)
    assert await database.fetchval("SELECT count(*) FROM llm_prices") == 0
    status, answer = await asked(api.post(f"{_ROUTE}/prices", json=wish))
    assert (status, answer) == (200, {"calls_priced": 3})
    # A price that begins earlier holds until this one; one that begins later follows it.
    earlier = wish | {"holds_from": (today - timedelta(days=9)).isoformat()}
    _, effects = await asked(api.post(f"{_ROUTE}/prices/effects", json=earlier))
    assert (effects["before"], datetime.fromisoformat(effects["holds_until"])) == (None, today)
    said = await teamfit("llm", "prices", "set", "small", "1", "2", "--dry-run")
    assert "Before: 0.15 and 0.60 USD" in said.stdout
    assert "0 calls on record have no price and would get one. Nothing was done." in said.stdout
    _, found = await asked(api.get(f"{_ROUTE}/prices"))
    assert [(one["model"], one["input_price"], one["holds"]) for one in found["prices"]] == [("small", 150_000, True)]
    (effects,) = await database.fetch("SELECT effects FROM operator_actions WHERE action = 'llm.price'")
    assert json.loads(effects["effects"])["calls_priced"] == 3


async def test_a_wrong_price_is_refused_and_logged(api: aiohttp.ClientSession, database: Pool) -> None:
    """Another currency than that of the others, a time that is none, a field that is misspelt: nothing is set."""
    good = {"model": "m", "holds_from": "2031-04-01T00:00:00Z", "input_price": 1, "output_price": 1}
    assert (await asked(api.post(f"{_ROUTE}/prices", json=good)))[0] == 200
    wrong: tuple[dict[str, object], ...] = (
        {"currency": "EUR"},
        {"currency": "usd"},
        {"holds_from": "soon"},
        {"input_price": -1},
        {"output_price": 10**12 + 1},
        {"model": "\0"},
        {"colour": "red"},
    )
    for one in wrong:
        for path in ("/prices", "/prices/effects"):
            status, problem = await asked(api.post(_ROUTE + path, json=good | one))
            assert (status, problem["code"]) == (422, "invalid_request"), one
    assert await _logged(database) == [
        ("llm.price", "model m", "api", "done"),
        ("llm.price", "model m", "api", "refused"),
    ]


async def test_calls_without_a_price_are_counted_by_an_index_up_to_a_bound(
    api: aiohttp.ClientSession, database: Pool
) -> None:
    """With many calls on record, most of them priced, the models are found without reading them all."""
    await database.execute(
        "INSERT INTO generation_attempts (job_id, run, attempt, token, state, started_at, model, cost)"
        " SELECT gen_random_uuid(), 1, 1, gen_random_uuid(), 'saved', now(), CASE WHEN n % 2 = 0 THEN 'a' ELSE 'b' END,"
        " CASE WHEN n > $1 THEN 5 END FROM generate_series(1, $2) AS n",
        *(2 * COUNTED + 8, 3 * COUNTED),
    )
    await database.execute("ANALYZE generation_attempts")
    _, found = await asked(api.get(f"{_ROUTE}/prices"))
    assert found["without_price"] == [
        {"model": name, "calls": {"number": COUNTED, "more": True}} for name in ("a", "b")
    ]
