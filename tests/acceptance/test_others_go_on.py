"""What happens to one organization's jobs does not hold up another's: shown by the order in which they end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest

from infra.auth import OPERATOR, issue_token, signing_key
from infra.local.organizations import BIRCH
from infra.local.stack import Stack
from producers.client import JobRequests, Request
from tests.acceptance.customer import WISH, Customer
from tests.conftest import Pool
from tests.waiting import wait_for

_OTHERS = 10


@pytest.fixture
async def troubled(books: Pool) -> str:
    """Return an organization of its own, the one that has the trouble."""
    name = f"troubled-{uuid4()}"
    await books.execute("INSERT INTO organizations (id, name) VALUES ($1, $1)", name)
    await books.execute(
        "INSERT INTO subscriptions (organization_id, plan, status, monthly_quota) VALUES ($1, 'team', 'active', 1000)",
        name,
    )
    await books.execute("INSERT INTO teams (id, organization_id, name) VALUES ($1, $1, 'Team')", name)
    return name


async def test_a_hanging_llm_call_holds_up_nobody_else(stack: Stack, books: Pool, troubled: str) -> None:
    """Jobs that were sent after the one whose call hangs end before it."""
    async with _llm(stack, mode="slow", latency=4, count=1):
        [hanging] = await _send(stack, troubled, troubled, 1)
        await _until(books, [hanging], "processing")
        others = await _send(stack, BIRCH.id, BIRCH.team.id, _OTHERS)
        await _until(books, [hanging, *others], "completed")
    assert await _first_to_end(books, [hanging, *others], _OTHERS) == set(others)


async def test_a_job_that_keeps_failing_holds_up_nobody_else(stack: Stack, books: Pool, troubled: str) -> None:
    """Jobs that were sent after one that fails try after try end before it is given up."""
    async with _llm(stack, mode="rubbish", count=1):
        [failing] = await _send(stack, troubled, troubled, 1)

        async def retried() -> bool:
            key = str(failing).encode()
            return bool(await books.fetchval("SELECT count(*) FROM scheduled_events WHERE key = $1", key))

        await wait_for(retried, what="the first try to fail")
        # It fails again as often as it may, and only it: the others begin once it waits for its next try.
        await books.execute("UPDATE scheduled_events SET due_at = now() + '2 s' WHERE key = $1", str(failing).encode())
        others = await _send(stack, BIRCH.id, BIRCH.team.id, _OTHERS)
        await _until(books, [failing, *others], "completed")
    assert await _first_to_end(books, [failing, *others], _OTHERS) == set(others)


async def test_a_poison_event_holds_up_nobody_behind_it(stack: Stack, books: Pool, customer: Customer) -> None:
    """Jobs behind an event that nobody can read complete, and the event is a dead letter."""
    poison = str(uuid4())
    await customer.xadd("key", poison, "event", "{")
    others = await _send(stack, BIRCH.id, BIRCH.team.id, _OTHERS)
    await _until(books, others, "completed")

    async def kept() -> bool:
        return bool(await books.fetchval("SELECT count(*) FROM failed_events WHERE key = $1", poison.encode()))

    await wait_for(kept, what="the dead letter")


async def test_a_replay_holds_up_nobody_else(stack: Stack, books: Pool, troubled: str) -> None:
    """Jobs that were sent in the middle of a replay end before the last job of the replay."""
    async with _llm(stack, mode="refusal"):
        failed = await _send(stack, troubled, troubled, 60)
        await _until(books, failed, "failed")
    async with _operator(stack) as operator:

        async def planned() -> str:
            plan = await _post(operator, "/api/ops/replay/plans", {"organization_id": troubled})
            assert plan["total"] == len(failed), plan
            return str(plan["id"])

        plan_id = await wait_for(planned, what="every failure to be kept")
        replay = asyncio.create_task(_post(operator, f"/api/ops/replay/plans/{plan_id}/apply", {"rate": 20}))
        await wait_for(lambda: _some_completed(books, failed), what="the replay to have begun")
        others = await _send(stack, BIRCH.id, BIRCH.team.id, _OTHERS)
        assert (await replay)["state"] == "finished"
    await _until(books, [*failed, *others], "completed")
    last = await _order_of_ends(books, [*failed, *others])
    assert last[-1] in failed
    assert max(last.index(job_id) for job_id in others) < len(last) - len(failed) // 4


async def _send(stack: Stack, organization_id: str, team_id: str, number: int) -> list[UUID]:
    async with JobRequests.connect(stack.settings.broker_url) as requests:
        request = Request(organization_id=organization_id, team_id=team_id, requirements=WISH)
        return list(await requests.submit_many([request] * number))


async def _until(books: Pool, job_ids: Sequence[UUID], status: str) -> None:
    async def reached() -> bool:
        rows = await books.fetch("SELECT status FROM customization_jobs WHERE job_id = ANY($1)", list(job_ids))
        assert [row["status"] for row in rows] == [status] * len(job_ids)
        return True

    await wait_for(reached, deadline_s=30, what=f"{len(job_ids)} jobs to be {status}")


async def _some_completed(books: Pool, job_ids: Sequence[UUID]) -> bool:
    statement = "SELECT count(*) FROM customization_jobs WHERE job_id = ANY($1) AND status = 'completed'"
    return bool(await books.fetchval(statement, list(job_ids)))


async def _order_of_ends(books: Pool, job_ids: Sequence[UUID]) -> list[UUID]:
    """Return the jobs in the order in which their completion was archived."""
    rows = await books.fetch(
        "SELECT job_id FROM job_events WHERE job_id = ANY($1) AND type = 'teamfit.job.completed.v1' ORDER BY sequence",
        list(job_ids),
    )
    return [row["job_id"] for row in rows]


async def _first_to_end(books: Pool, job_ids: Sequence[UUID], number: int) -> set[UUID]:
    return set((await _order_of_ends(books, job_ids))[:number])


@asynccontextmanager
async def _llm(stack: Stack, **order: Any) -> AsyncIterator[None]:
    control = f"{stack.settings.openai_base_url}".replace("/v1", "/control")
    async with aiohttp.ClientSession() as http:
        async with http.put(control, json=order) as answer:
            assert answer.status == 200
        try:
            yield
        finally:
            async with http.put(control, json={"mode": "ok"}) as answer:
                assert answer.status == 200


@asynccontextmanager
async def _operator(stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    key = signing_key(stack.settings)
    token = issue_token(key, organization_id="operations", scopes=[OPERATOR], lifetime=timedelta(hours=1))
    async with aiohttp.ClientSession(stack.api_url, headers={"Authorization": f"Bearer {token}"}) as http:
        yield http


async def _post(http: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> Any:
    async with http.post(path, json=body) as answer:
        assert answer.status < 300, await answer.text()
        return await answer.json()
