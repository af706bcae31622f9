"""Polling a job over HTTP."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import aiohttp
import pytest

from consumers.projection.handlers import Projection
from infra.postgres import Database
from streams.jobs.events import JobEvent, JobId
from streams.jobs.facts import activity_written
from tests import facts
from tests.api_server import api_settings, bearer, serving
from tests.conftest import Pool

JOB = UUID("0f9b9ad4-6f2c-4b0e-9a51-0d2d8e1c7a10")
NOON = datetime(2031, 4, 1, 12, tzinfo=UTC)


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """An API on the test's own database; reading jobs needs no broker."""
    async with serving(api_settings(database_url=database_url)) as session:
        yield session


async def add_job(
    database: Pool, status: str, *, organization: str | None = "acme", message: str | None = None
) -> None:
    """Put a row into the read model."""
    await database.execute(
        "INSERT INTO customization_jobs (job_id, organization_id, team_id, status, error_code, error_message,"
        " created_at) VALUES ($1, $2, 'acme-team', $3, $4, $5, $6)",
        JOB,
        organization,
        status,
        "llm_refusal" if message else None,
        message,
        NOON,
    )


async def add_activities(database: Pool) -> None:
    """Put three activities beside the job, last one first."""
    for position in (3, 2, 1):
        await database.execute(
            "INSERT INTO customized_activities (job_id, position, title, description, duration_minutes, group_size,"
            " materials, steps, objective)"
            """ VALUES ($1, $2, $3, 'Walk', 30, '{"min": 2, "max": 9}', '["rope"]', '["go"]', 'Fun')""",
            JOB,
            position,
            f"Activity {position}",
        )


async def test_a_completed_job_shows_its_activities(api: aiohttp.ClientSession, database: Pool) -> None:
    """Three activities, in their order, each with everything that a team needs."""
    await add_job(database, "completed")
    await add_activities(database)
    async with api.get(f"/api/jobs/{JOB}", headers=bearer()) as answer:
        job = await answer.json()
    assert answer.status == 200
    assert (job["success"], job["job_id"], job["status"], job["run"]) == (True, str(JOB), "completed", 1)
    assert job["created_at"] == "2031-04-01T12:00:00Z"
    assert [one["title"] for one in job["activities"]] == ["Activity 1", "Activity 2", "Activity 3"]
    assert job["activities"][0] == {
        "title": "Activity 1",
        "description": "Walk",
        "duration_minutes": 30,
        "group_size": {"min": 2, "max": 9},
        "materials": ["rope"],
        "steps": ["go"],
        "objective": "Fun",
    }


@pytest.mark.parametrize("status", ["pending", "processing", "failed", "cancelled"])
async def test_activities_are_shown_only_when_completed(
    api: aiohttp.ClientSession, database: Pool, status: str
) -> None:
    """A job that is on its way again after a replay does not show what an earlier run left."""
    await add_job(database, status)
    await add_activities(database)
    async with api.get(f"/api/jobs/{JOB}", headers=bearer()) as answer:
        job = await answer.json()
    assert (job["status"], job["activities"]) == (status, [])


@pytest.mark.parametrize("status", ["pending", "processing", "completed", "failed"])
async def test_while_the_llm_writes_its_titles_are_shown(
    api: aiohttp.ClientSession, database: Pool, status: str
) -> None:
    """Those of the newest attempt of this run, in the order of the answer; afterwards the activities speak."""
    await add_job(database, status)
    job = facts.started(job=JobId(JOB))
    for run, attempt, number in ((1, 1, 2), (1, 1, 1), (1, 2, 2), (1, 2, 1), (2, 1, 3)):
        event = activity_written(
            job.model_copy(update={"run": run}), attempt, number, f"{run}-{attempt}-{number}", at=NOON
        )
        await archive(database, event)
    async with api.get(f"/api/jobs/{JOB}", headers=bearer()) as answer:
        shown = (await answer.json())["titles_so_far"]
    assert shown == (["1-2-1", "1-2-2"] if status == "processing" else [])

    await archive(database, facts.started(job=JobId(JOB), attempt=3))
    async with api.get(f"/api/jobs/{JOB}", headers=bearer()) as answer:
        assert (await answer.json())["titles_so_far"] == []


async def archive(database: Pool, event: JobEvent) -> None:
    """Put an event into the archive."""
    await database.execute(
        "INSERT INTO job_events (job_id, event_id, run, type, organization_id, time, event)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        *(event.job_id, event.id, event.run, event.type, event.data.organization_id, event.time),
        event.encode().decode(),
    )


async def test_a_failed_job_says_why(api: aiohttp.ClientSession, database: Pool) -> None:
    """The code is for programs, the message for people."""
    await add_job(database, "failed", message="the model would not")
    async with api.get(f"/api/jobs/{JOB}", headers=bearer()) as answer:
        job = await answer.json()
    assert (job["status"], job["error_code"], job["error_message"]) == ("failed", "llm_refusal", "the model would not")


async def test_a_job_that_was_just_accepted_is_pending(api: aiohttp.ClientSession, database: Pool) -> None:
    """Between the 202 and the projection's first event, a job is pending, and unknown to others."""
    await database.execute(
        "INSERT INTO job_requests (job_id, organization_id, team_id, event) VALUES ($1, 'acme', 'acme-team', '{}')", JOB
    )
    async with api.get(f"/api/jobs/{JOB}", headers=bearer()) as answer:
        job = await answer.json()
        assert (answer.status, job["status"], job["team_id"], job["run"]) == (200, "pending", "acme-team", 1)
    async with api.get(f"/api/jobs/{JOB}", headers=bearer("rival")) as answer:
        assert answer.status == 404


async def test_a_job_was_asked_for_at_one_time_for_life(
    api: aiohttp.ClientSession, database: Pool, database_url: str
) -> None:
    """Front ends sort by it; it used to move by the moment between the event and its row."""
    event = facts.requested()
    await database.execute(
        "INSERT INTO job_requests (job_id, organization_id, team_id, event) VALUES ($1, 'acme', 'acme-team', $2)",
        JOB,
        event.model_dump_json(),
    )
    times = []
    opened = Database(database_url, size=1)
    for step in (lambda: Projection(opened).project([event]), opened.close):
        async with api.get(f"/api/jobs/{JOB}", headers=bearer()) as answer:
            times.append((await answer.json())["created_at"])
        await step()
    assert times[0] == times[1]


async def test_another_organizations_job_is_as_unknown_as_none(api: aiohttp.ClientSession, database: Pool) -> None:
    """Nobody can tell another organization's job from one that never was; no operator either."""
    await add_job(database, "completed")
    unknown = uuid4()
    documents = []
    for job_id, caller in ((JOB, bearer("rival")), (JOB, bearer("rival", "jobs", "operator")), (unknown, bearer())):
        async with api.get(f"/api/jobs/{job_id}", headers=caller) as answer:
            text = (await answer.text()).replace(str(job_id), "ID")
            documents.append((answer.status, answer.content_type, text))
    assert len(set(documents)) == 1
    assert documents[0][:2] == (404, "application/problem+json")


async def test_an_old_job_without_an_organization_is_for_operators(api: aiohttp.ClientSession, database: Pool) -> None:
    """A row of the Celery days that no organization owns is not shown to just anyone; its status reads as ours."""
    await add_job(database, "SUCCESS", organization=None)
    async with api.get(f"/api/jobs/{JOB}", headers=bearer()) as answer:
        assert answer.status == 404
    async with api.get(f"/api/jobs/{JOB}", headers=bearer("acme", "jobs", "operator")) as answer:
        assert (answer.status, (await answer.json())["status"]) == (200, "completed")


async def test_a_malformed_id_says_what_an_id_looks_like(api: aiohttp.ClientSession) -> None:
    """The problem names the field and the fix, and does not repeat what was sent."""
    async with api.get("/api/jobs/not-a-uuid", headers=bearer()) as answer:
        problem = await answer.json()
    assert (answer.status, answer.content_type, problem["code"]) == (422, "application/problem+json", "invalid_request")
    assert problem["errors"] == [
        {"field": "job_id", "message": "must be a UUID such as 7c9e6679-7425-40de-944b-e07fc1f90ae7"}
    ]
    assert "not-a-uuid" not in str(problem)
