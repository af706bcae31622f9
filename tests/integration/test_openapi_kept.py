"""Schemathesis asks each route what openapi.json allows and what it does not: the answers are the documented ones."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from consumers.projection.handlers import Projection
from infra.postgres import Database
from tests.api_server import api_settings, bearer, serving
from tests.conftest import Pool
from tests.facts import JOB, completed, requested
from tests.organizations import add_organizations


@pytest.fixture
async def api(database_url: str, database: Pool, redis_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """An API with everything it needs, and a job that has ended."""
    await add_organizations(database)
    opened = Database(database_url, size=1)
    await Projection(opened).project([requested(), completed()])
    await opened.close()
    async with serving(api_settings(database_url=database_url, broker_url=redis_url)) as session:
        yield session


@pytest.mark.timeout(600)  # a bounded number of requests to every route
async def test_every_answer_is_a_documented_one(api: aiohttp.ClientSession) -> None:
    """No 5xx, no status, code, header or field that openapi.json does not have, whatever is sent to whichever route."""
    async with api.get("/openapi.json") as answer:
        document: dict[str, Any] = await answer.json()
    async with api.post("/api/ops/replay/plans", json={}, headers=bearer("acme", "operator")) as answer:
        plan = (await answer.json())["id"]
    from tests.integration.openapi_questions import ask_at  # noqa: PLC0415 - it takes a second to load

    known = {"job_id": str(JOB), "plan_id": plan}
    assert await asyncio.to_thread(ask_at, str(api._base_url), document, known) > 500
