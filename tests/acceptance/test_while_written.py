"""A waiting person sees the first activity while the LLM writes the others."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from infra.local.organizations import BIRCH
from infra.local.stack import Stack
from tests.acceptance.customer import Customer

# Each activity takes a second, so that whoever looks between two of them is in time on a slow machine too.
_CALL_S = 6.0


@pytest.fixture
async def slow_llm(stack: Stack) -> AsyncIterator[None]:
    """Let each answer take a while, and set it back."""
    control = f"{stack.settings.openai_base_url}".replace("/v1", "/control")
    async with aiohttp.ClientSession() as http:
        async with http.put(control, json={"latency": _CALL_S}) as answer:
            assert answer.status == 200
        yield
        async with http.put(control, json={}) as answer:
            assert answer.status == 200


async def events_of(customer: Customer, job_id: str) -> AsyncIterator[tuple[str, Any]]:
    """Yield the names and the data of a job's events, as they come."""
    headers = {"Authorization": f"Bearer {customer.stack.token(BIRCH.id)}"}
    async with customer.http.get(f"/api/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.status == 200
        name = ""
        async for line in answer.content:
            match line.decode().rstrip("\n").partition(": "):
                case "event", _, kind:
                    name = kind
                case "data", _, data:
                    yield name, json.loads(data)


@pytest.mark.usefixtures("slow_llm")
async def test_the_events_tell_of_an_activity_before_the_answer_is_there(customer: Customer) -> None:
    """The first title comes while nothing is saved; then the others, then the end; what was told is what is saved."""
    status, accepted = await customer.post(requirements="Something slow outdoors for 6 designers.")
    assert status == 202
    told: list[str] = []
    kinds: list[str] = []
    async for kind, event in events_of(customer, accepted["job_id"]):
        kinds.append(kind)
        if kind != "progressed":
            continue
        assert (event["data"]["step"], event["data"]["number"]) == ("activity", len(told) + 1)
        told.append(event["data"]["title"])
        if len(told) == 1:
            job = await customer.job(accepted["job_id"])
            assert (job["status"], job["activities"]) == ("processing", [])
            assert job["titles_so_far"][:1] == told
    assert kinds == ["requested", "started", *["progressed"] * 3, "completed"]
    job = await customer.job(accepted["job_id"])
    assert [one["title"] for one in job["activities"]] == told
    assert job["titles_so_far"] == []
