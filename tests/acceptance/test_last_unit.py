"""The last unit of quota, wanted by everybody at once."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import aiohttp
import asyncpg
import pytest

from infra.local.stack import Stack
from infra.settings import Settings
from tests.acceptance.running import running
from tests.verified import assert_consistent
from tests.waiting import wait_for

_REQUESTS = 200
_APIS = ("api", "api-2", "api-3")


@pytest.fixture
def crowded(_own_surroundings: None) -> Iterator[Stack]:
    """A pipeline with three API processes and two quota workers."""
    parts = (*_APIS, "quota", "quota-2", "generation", "projection")
    stack = Stack(Settings(_env_file=None), llm_latency_s=0.1, durable=False, parts=parts)
    with running(stack):
        yield stack


async def test_of_200_requests_for_the_last_unit_one_is_accepted(crowded: Stack) -> None:
    """One job completes, 199 requests are refused with `quota_exceeded`, and the ledger holds exactly one charge.

    The early check over HTTP cannot refuse them all, because nothing is reserved yet when they come; what it lets pass
    the quota stage decides, one after the other under the lock.
    """
    books = await asyncpg.connect(crowded.settings.database_url)
    try:
        await _add_organization(books)
        answers = await _ask_at_once(crowded)
        statuses = Counter(status for status, _ in answers)
        assert set(statuses) <= {202, 429}, statuses
        assert all(body["code"] == "quota_exceeded" for status, body in answers if status == 429)

        async def all_ended() -> bool:
            rows = await books.fetch("SELECT status, error_code FROM customization_jobs WHERE organization_id = 'last'")
            ended = Counter((row["status"], row["error_code"]) for row in rows)
            assert (
                ended == Counter({("completed", None): 1, ("failed", "quota_exceeded"): statuses[202] - 1}) + Counter()
            )
            return True

        await wait_for(all_ended, deadline_s=30, what="every accepted request to end")
        await assert_consistent(crowded.settings.database_url)
        usage = await books.fetchrow("SELECT charged, reserved FROM quota_usage WHERE organization_id = 'last'")
        assert usage is not None
        assert tuple(usage) == (1, 0)
        states = await books.fetch(
            "SELECT state, count(*) FROM quota_ledger WHERE organization_id = 'last' GROUP BY state"
        )
        assert Counter(dict(map(tuple, states))) == Counter(charged=1, rejected=statuses[202] - 1) + Counter()
    finally:
        await books.close()


async def _add_organization(books: "asyncpg.Connection[asyncpg.Record]") -> None:
    await books.execute("INSERT INTO organizations (id, name) VALUES ('last', 'last')")
    await books.execute(
        "INSERT INTO subscriptions (organization_id, plan, status, monthly_quota) VALUES ('last', 'team', 'active', 1)"
    )
    await books.execute("INSERT INTO teams (id, organization_id, name) VALUES ('last-team', 'last', 'Team')")


async def _ask_at_once(stack: Stack) -> list[tuple[int, Any]]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:

        async def ask(number: int) -> tuple[int, Any]:
            async with http.post(
                f"{stack.url_of(_APIS[number % len(_APIS)])}/api/activities/generate-custom",
                headers={"Authorization": f"Bearer {stack.token('last')}"},
                json={"organization_id": "last", "team_id": "last-team", "requirements": f"Outdoors, variant {number}"},
            ) as answer:
                return answer.status, await answer.json(content_type=None)

        return list(await asyncio.gather(*(ask(number) for number in range(_REQUESTS))))
