"""All stages run in one process: for installations that have one small machine."""

import asyncio
from collections.abc import Iterator

import aiohttp
import pytest

from infra.local.processes import HOST, free_port
from infra.local.stack import ALL, API, WORKERS, Stack
from infra.settings import Settings
from tests.acceptance.customer import Customer, sixty_jobs
from tests.acceptance.running import running
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def port() -> int:
    """A port for the worker's health and metrics."""
    return free_port()


@pytest.fixture(scope="module")
def small(port: int, _own_surroundings: None) -> Iterator[Stack]:
    """The pipeline in two processes: one worker and the API."""
    stack = Stack(
        Settings(_env_file=None, generation_concurrency=10),
        llm_latency_s=0.1,
        broker_parameters="lease=2s",
        durable=False,
        parts=(ALL, API),
        variables=lambda part: {"TEAMFIT_WORKER_PORT": str(port)} if part == ALL else {},
    )
    with running(stack):
        yield stack


async def test_all_stages_share_one_process_and_its_death_loses_nothing(small: Stack, port: int) -> None:
    """Jobs complete; `kill -9` of everything at once and a restart lose none; one port tells every stage's health."""
    async with aiohttp.ClientSession(small.api_url) as http:
        customer = Customer(small, http)
        await customer.gets_three_activities()
        async with sixty_jobs(small):
            small.kill(ALL)
            await asyncio.to_thread(small.start, ALL)
        async with http.get(f"http://{HOST}:{port}/readyz") as ready:
            assert await ready.json() == {"status": "ready", "problems": [], "paused": []}
        async with http.get(f"http://{HOST}:{port}/metrics") as answer:
            metrics = await answer.text()
        assert all(f'teamfit_stage_held{{group="{stage}",reason="postgres"}} 0.0' in metrics for stage in WORKERS)


async def test_every_stage_that_stands_still_is_told(small: Stack, port: int) -> None:
    """With Postgres away, /readyz of the one port names the stages that wait for it; afterwards all is well again."""
    assert small.postgres is not None
    async with aiohttp.ClientSession(small.api_url) as http:
        customer = Customer(small, http)
        await customer.gets_three_activities()
        small.postgres.kill()
        try:
            await customer.xadd("event", "{}")

            async def held() -> bool:
                async with http.get(f"http://{HOST}:{port}/readyz") as ready:
                    problems = (await ready.json())["problems"]
                return any(problem.startswith("quota is held") for problem in problems)

            await wait_for(held, deadline_s=60, what="the quota stage to say that it is held")
        finally:
            await asyncio.to_thread(small.postgres.restart)
        await customer.gets_three_activities()
