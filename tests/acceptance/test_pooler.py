"""The whole pipeline through a pooler in transaction mode, which shares few connections of Postgres among all."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import aiohttp
import asyncpg
import pytest

from infra.local.organizations import BIRCH
from infra.local.servers import start_postgres
from infra.local.stack import Stack
from infra.settings import Settings
from tests.acceptance.running import running
from tests.pgbouncer import needs_pgbouncer, pgbouncer
from tests.verified import assert_consistent
from tests.waiting import wait_for

pytestmark = needs_pgbouncer

_REQUESTS = 200


@pytest.fixture
def pooled(_own_surroundings: None) -> Iterator[tuple[Stack, str]]:
    """A pipeline that knows the pooler's address alone, and the database's own."""
    with start_postgres(durable=False, in_memory=True) as postgres, pgbouncer(postgres.url) as url:
        stack = Stack(Settings(_env_file=None, database_url=url), llm_latency_s=0.1, durable=False)
        with running(stack):
            yield stack, postgres.url


async def test_200_jobs_complete_through_a_pooler(pooled: tuple[Stack, str]) -> None:
    """Every POST is accepted and every job completes; no process ends, none takes Postgres for away.

    With named statements 113 of 200 POSTs were answered with 500, nothing completed, and the schedule worker ended
    eleven times.
    """
    stack, database_url = pooled
    assert await _ask_at_once(stack) == Counter({202: _REQUESTS})
    books = await asyncpg.connect(database_url)
    try:

        async def all_completed() -> bool:
            rows = await books.fetch("SELECT status, count(*) FROM customization_jobs GROUP BY status")
            return {row["status"]: row["count"] for row in rows} == {"completed": _REQUESTS}

        await wait_for(all_completed, deadline_s=60, what="every job to complete")
    finally:
        await books.close()
    await assert_consistent(database_url, deadline_s=30)
    stack.check()
    for log in stack.folder.glob("*.log"):
        lines = [line for line in log.read_text().splitlines() if "Postgres is away" in line or "Traceback" in line]
        assert lines == [], log.name


async def _ask_at_once(stack: Stack) -> Counter[int]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=50)) as http:

        async def ask(number: int) -> int:
            async with http.post(
                f"{stack.api_url}/api/activities/generate-custom",
                headers={"Authorization": f"Bearer {stack.token(BIRCH.id)}"},
                json={"organization_id": BIRCH.id, "team_id": BIRCH.team.id, "requirements": f"Outdoors, {number}"},
            ) as answer:
                return answer.status

        return Counter(await asyncio.gather(*(ask(number) for number in range(_REQUESTS))))
