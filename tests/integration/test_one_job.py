"""One job by page, command and API: the same of each, and what all see of streams, plans and organizations."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from tests.api_server import api_settings, bearer, serving
from tests.commands import Run
from tests.conftest import Pool
from tests.integration.quota_scene import request
from tests.integration.replay_scene import Scene, open_scene


@pytest.fixture
async def scene(database: Pool, database_url: str) -> AsyncIterator[Scene]:
    """The pipeline's tables and the code of its stages."""
    async with open_scene(database, database_url) as opened:
        yield opened


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the API that is an operator."""
    async with serving(api_settings(database_url=database_url, broker_url=redis_url)) as http:
        http.headers.update(bearer("ops", "operator"))
        yield http


async def _read(api: aiohttp.ClientSession, path: str, status: int = 200) -> Any:
    async with api.get(f"/api/ops/{path}") as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


async def _told(teamfit: Run, *arguments: object) -> Any:
    result = await teamfit(*arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def test_a_job_is_the_same_by_command_and_api(
    scene: Scene, api: aiohttp.ClientSession, teamfit: Run, database: Pool
) -> None:
    """Its life step by step, what its customer wrote, and each event."""
    job = await scene.failed_generation()
    await database.execute(
        "INSERT INTO customization_jobs (job_id, organization_id, team_id, status, run, requirements, created_at, "
        "updated_at) VALUES ($1, 'acme', 'acme-team', 'failed', 1, $2, now(), now())",
        *(job.job_id, job.data.requirements),
    )
    await database.execute(
        "INSERT INTO job_events (job_id, event_id, run, type, organization_id, time, event) "
        "SELECT $1, 'event-' || n, 1, 'teamfit.job.progressed.v1', 'acme', now(), jsonb_build_object('n', n) "
        "FROM generate_series(1, 3) AS n",
        job.job_id,
    )
    told, shown = await _read(api, f"jobs/{job.job_id}"), await _told(teamfit, "job", "show", job.job_id, "--json")
    assert told["content"]["requirements"] == job.data.requirements == shown["content"]["requirements"]
    assert told["life"]["job"]["status"] == shown["job"]["status"] == "failed"
    for section in ("facts", "quota", "calls", "failed", "outcomes"):
        assert len(told["life"][section]) == len(shown[section]), section
    assert [one["type"] for one in told["life"]["facts"]] == [one["type"] for one in shown["facts"]]
    assert str(job.data.requirements) in (await teamfit("job", "show", job.job_id)).stdout
    page, printed = await _read(api, f"jobs/{job.job_id}/events"), await _told(teamfit, "job", "events", job.job_id)
    assert [one["event"] for one in page["events"]] == [one["event"] for one in printed["events"]]
    assert page["next"] is printed["next"] is None
    first = await _read(api, f"jobs/{job.job_id}/events?limit=1")
    rest = await _read(api, f"jobs/{job.job_id}/events?after={first['next']}")
    assert first["events"] + rest["events"] == page["events"]
    assert (await _read(api, f"jobs/{uuid4()}", 404))["code"] == "job_not_found"
    assert (await _read(api, f"jobs/{job.job_id}/events?after=-1", 422))["code"] == "invalid_request"


async def test_jobs_are_cancelled_by_the_api_as_by_the_command(
    scene: Scene, api: aiohttp.ClientSession, database: Pool
) -> None:
    """Each says what became of it, the log has who and why; a repeat returns the same, and one that has ended stays."""
    failed, asked, unknown = await scene.failed_generation(), request(), uuid4()
    live = asked.job_id
    await database.execute(
        "INSERT INTO job_requests (job_id, organization_id, team_id, event) VALUES ($1, 'acme', 'acme-team', $2)",
        *(live, asked.model_dump_json()),
    )
    body = {"job_ids": [str(failed.job_id), str(live), str(unknown), str(live)], "because": "a wrong import"}
    async with api.post("/api/ops/jobs/cancel/effects", json={"job_ids": body["job_ids"]}) as answer:
        assert answer.status == 200, await answer.text()
        effects = await answer.json()
    assert [(one["is_known"], one["ended"]) for one in effects["jobs"]] == [
        (True, "failed"),
        (True, None),
        (False, None),
    ]
    assert effects["living"] == 1
    for _ in range(2):
        async with api.post("/api/ops/jobs/cancel", json=body) as answer:
            assert answer.status == 200, await answer.text()
            results = await answer.json()
        assert [(one["job_id"], one["cancelled"], one["code"]) for one in results] == [
            (str(failed.job_id), False, "job_failed"),
            (str(live), True, None),
            (str(unknown), False, "job_not_found"),
        ]
    log = "SELECT count(*) FROM operator_actions WHERE action = 'job.cancel' AND outcome = 'done' AND face = 'api'"
    assert await database.fetchval(log) >= 1
    for wrong in ({"job_ids": [], "because": "x"}, {"job_ids": [str(live)]}, {"job_ids": ["x"], "because": "x"}):
        async with api.post("/api/ops/jobs/cancel", json=wrong) as answer:
            assert answer.status == 422, wrong


async def test_streams_plans_and_organizations_are_told_too(
    scene: Scene, api: aiohttp.ClientSession, teamfit: Run
) -> None:
    """The API answers what pages show: lag by group, plans of replays, an organization's teams."""
    lag, printed = await _read(api, "streams"), await _told(teamfit, "lag", "--json")
    assert {one["topic"] for one in lag["topics"]} >= {"job-requests", "job-events"}
    assert {one["topic"] for one in lag["topics"]} == {one["topic"] for one in printed}
    await scene.failed_generation()
    made = {str((await scene.plan()).id) for _ in range(2)}
    plans = await _read(api, "replay/plans")
    assert {one["id"] for one in plans} == made
    assert [one["id"] for one in await _read(api, f"replay/plans?before={plans[0]['created_at'][:19]}Z")] == []
    books = await _read(api, "organizations/books?organization_id=acme")
    assert {one["organization_id"] for one in books["teams"]} == {"acme"}
    named = await _told(teamfit, "organization", "list", "--name", "ACM", "--json")
    assert [one["id"] for one in named] == ["acme"]
