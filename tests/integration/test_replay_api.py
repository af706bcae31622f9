"""The operators' routes, with a real broker and a real Postgres."""

from collections.abc import AsyncIterator
from uuid import uuid4

import aiohttp
import orjson
import pytest

from streams.jobs.events import parse_event
from tests.api_server import api_settings, bearer, serving
from tests.conftest import Pool
from tests.integration.replay_scene import Scene, open_scene
from tests.stream_entries import entries_of

OPERATOR = bearer("teamfit", "operator")


@pytest.fixture
async def scene(database: Pool, database_url: str) -> AsyncIterator[Scene]:
    """Two failed generations and an entry that is no event."""
    async with open_scene(database, database_url) as scene:
        for _ in range(2):
            await scene.failed_generation()
        await scene.malformed(b"\xff\xfe no event")
        yield scene


@pytest.fixture
async def api(database_url: str, redis_url: str, scene: Scene) -> AsyncIterator[aiohttp.ClientSession]:
    """An API with everything it needs."""
    async with serving(api_settings(database_url=database_url, broker_url=redis_url)) as session:
        yield session


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/failed"),
        ("GET", "/failed/7c9e6679-7425-40de-944b-e07fc1f90ae7"),
        ("POST", "/failed/7c9e6679-7425-40de-944b-e07fc1f90ae7/discard"),
        ("POST", "/replay/plans"),
        ("GET", "/replay/plans/7c9e6679-7425-40de-944b-e07fc1f90ae7"),
        ("POST", "/replay/plans/7c9e6679-7425-40de-944b-e07fc1f90ae7/apply"),
        ("POST", "/replay/plans/7c9e6679-7425-40de-944b-e07fc1f90ae7/abort"),
    ],
)
async def test_only_operators_are_let_in(api: aiohttp.ClientSession, method: str, path: str) -> None:
    """An organization's own token is not enough for any of the routes, and no token even less."""
    async with api.request(method, f"/api/ops{path}", json={}, headers=bearer("acme")) as answer:
        assert (answer.status, (await answer.json())["code"]) == (403, "insufficient_scope")
    async with api.request(method, f"/api/ops{path}", json={}) as answer:
        assert answer.status == 401


async def test_failed_events_are_listed_by_page_and_filter(api: aiohttp.ClientSession) -> None:
    """Pages do not overlap and end; a filter narrows the list and its total; an unknown filter is said to be so."""
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        async with api.get("/api/ops/failed", params={"limit": "1", **after}, headers=OPERATOR) as answer:
            page = await answer.json()
        assert (answer.status, page["total"]) == (200, 3)
        seen += [one["id"] for one in page["failed_events"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert len(set(seen)) == len(seen) == 3
    async with api.get("/api/ops/failed", params={"error_type": "InvalidEvent"}, headers=OPERATOR) as answer:
        page = await answer.json()
    assert (page["total"], page["failed_events"][0]["stage"]) == (1, "quota")
    for wrong in ({"colour": "red"}, {"after": "nowhere"}, {"since": "yesterday"}, {"limit": "0"}, {"stage": "a\0b"}):
        async with api.get("/api/ops/failed", params=wrong, headers=OPERATOR) as answer:
            assert (answer.status, (await answer.json())["code"]) == (422, "invalid_request"), wrong


async def test_one_failed_event_is_shown_whole_and_discarded(api: aiohttp.ClientSession, scene: Scene) -> None:
    """Bytes that are no text come in base64; a discard notes who and why, and repeating it changes nothing."""
    identity = await scene.pool.fetchval("SELECT id FROM failed_events WHERE stage = 'quota'")
    async with api.get(f"/api/ops/failed/{identity}", headers=OPERATOR) as answer:
        shown = await answer.json()
    assert shown["event"] == {"text": None, "base64": "//4gbm8gZXZlbnQ=", "size": 11}
    assert shown["headers"]["note"] == "by hand"
    assert "InvalidEvent" in shown["traceback"]
    discarded = {}
    for because in ("noise", "another reason"):
        async with api.post(
            f"/api/ops/failed/{identity}/discard", json={"because": because}, headers=OPERATOR
        ) as answer:
            discarded = await answer.json()
        assert (answer.status, discarded["state"], discarded["discarded_because"]) == (200, "discarded", "noise")
    assert discarded["discarded_by"] == "cli"
    async with api.get(f"/api/ops/failed/{uuid4()}", headers=OPERATOR) as answer:
        assert (answer.status, (await answer.json())["code"]) == (404, "failed_event_not_found")


async def test_a_plan_is_made_applied_and_then_finished(api: aiohttp.ClientSession, redis_url: str) -> None:
    """The plan shows its effects and items; applying sends just them to the stream; again, it changes nothing."""
    async with api.post("/api/ops/replay/plans", json={"stage": "generation"}, headers=OPERATOR) as answer:
        plan = await answer.json()
    assert (answer.status, plan["state"], plan["effects"]["reruns"], plan["created_by"]) == (201, "planned", 2, "cli")
    path = f"/api/ops/replay/plans/{plan['id']}"
    assert await entries_of(redis_url, "job-requests") == []
    for _ in range(2):
        async with api.post(f"{path}/apply", json={"rate": 1000}, headers=OPERATOR) as answer:
            applied = await answer.json()
        assert (answer.status, applied["state"], applied["sent"]) == (200, "finished", 2)
    sent = [parse_event(fields[b"event"]) for fields in await entries_of(redis_url, "job-requests")]
    assert [event.run for event in sent] == [2, 2]
    async with api.get(path, params={"limit": "1"}, headers=OPERATOR) as answer:
        page = await answer.json()
    assert [(one["position"], one["next_run"]) for one in page["items"]] == [(1, 2)]
    async with api.get(path, params={"after": "2"}, headers=OPERATOR) as answer:
        assert (await answer.json())["items"] == []


async def test_refusals_are_problem_documents(api: aiohttp.ClientSession, scene: Scene) -> None:
    """A plan that is unknown, changed or aborted, and a rate that is none, each have their code."""
    async with api.post(f"/api/ops/replay/plans/{uuid4()}/apply", json={"rate": 1}, headers=OPERATOR) as answer:
        assert (answer.status, (await answer.json())["code"]) == (404, "plan_not_found")
    plan = await scene.plan()
    path = f"/api/ops/replay/plans/{plan.id}"
    async with api.post(f"{path}/apply", json={"rate": 0}, headers=OPERATOR) as answer:
        assert answer.status == 422
    await scene.pool.execute("UPDATE failed_events SET occurrences = 2")
    async with api.post(f"{path}/apply", json={"rate": 1}, headers=OPERATOR) as answer:
        problem = await answer.json()
    assert (answer.status, answer.content_type, problem["code"]) == (409, "application/problem+json", "plan_changed")
    assert "failed again" in problem["detail"]
    async with api.post(f"{path}/abort", headers=OPERATOR) as answer:
        assert (answer.status, (await answer.json())["state"]) == (200, "aborted")
    async with api.post(f"{path}/apply", json={"rate": 1}, headers=OPERATOR) as answer:
        assert (answer.status, (await answer.json())["code"]) == (409, "plan_aborted")


async def test_a_filter_by_a_word_that_is_none_is_refused(api: aiohttp.ClientSession) -> None:
    """A misspelt filter must not plan everything."""
    async with api.post("/api/ops/replay/plans", json={"organisation": "acme"}, headers=OPERATOR) as answer:
        problem = orjson.loads(await answer.read())
    assert (answer.status, problem["errors"][0]["field"]) == (422, "organisation")
