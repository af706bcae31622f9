"""Schemathesis asks each route what openapi.json allows and what it does not: the answers are the documented ones."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import nullcontext, suppress
from typing import Any

import aiohttp
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from consumers.projection.handlers import Projection
from infra.postgres import Database
from tests.api_server import api_settings, bearer, serving
from tests.conftest import Pool
from tests.facts import JOB, completed, requested
from tests.organizations import add_organizations

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# Two kinds of question for each of the routes: about 900 in all, the same each time.
CASES = 8


@pytest.fixture
async def api(database_url: str, database: Pool, redis_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """An API with everything it needs, and a job that has ended."""
    await add_organizations(database)
    opened = Database(database_url, size=1)
    await Projection(opened).project([requested(), completed()])
    await opened.close()
    async with serving(api_settings(database_url=database_url, broker_url=redis_url)) as session:
        yield session


def ask(schema: schemathesis.BaseSchema, known: Mapping[str, str], session: requests.Session) -> int:
    """Ask every route as its document allows, and as it does not; return how often."""
    asked = 0
    session.headers.clear()
    vars(session).update(trust_env=False)  # to look for proxies takes longer than to send a request
    sending: dict[str, Any] = {
        "headers": bearer("acme", "jobs", "operator"),
        "checks": CHECKS,
        "timeout": 60,
        "session": session,
    }
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        for mode in schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE:
            strategy = operation.as_strategy(generation_mode=mode)

            @settings(
                max_examples=CASES,
                derandomize=True,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=strategy)
            def once(case: schemathesis.Case[Any]) -> None:
                nonlocal asked
                asked += 1
                case.call_and_validate(**sending)
                # Of IDs that are made up no route has anything to tell.
                if any(name in known for name in case.path_parameters):
                    case.path_parameters = {**case.path_parameters, **known}
                    case.call_and_validate(**sending)
                if isinstance(case.body, dict) and "organization_id" in case.body:
                    case.body = {**case.body, "organization_id": "acme", "team_id": "acme-team"}
                    case.call_and_validate(**sending)

            # A route that takes nothing cannot be asked wrongly.
            with suppress(Unsatisfiable) if mode.is_negative else nullcontext():
                once()
    return asked


@pytest.mark.timeout(600)  # a bounded number of requests to every route
async def test_every_answer_is_a_documented_one(api: aiohttp.ClientSession) -> None:
    """No 5xx, no status, code, header or field that openapi.json does not have, whatever is sent to whichever route."""
    async with api.get("/openapi.json") as answer:
        document: dict[str, Any] = await answer.json()
    async with api.post("/api/ops/replay/plans", json={}, headers=bearer("acme", "operator")) as answer:
        plan = (await answer.json())["id"]
    document["servers"] = [{"url": str(api._base_url)}]
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=str(api._base_url))
    known = {"job_id": str(JOB), "plan_id": plan}
    with requests.Session() as session:
        assert await asyncio.to_thread(ask, schema, known, session) > 500
