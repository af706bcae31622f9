"""What an operator would see in the books of a pipeline that has worked."""

import asyncio

import aiohttp

from infra.local.stack import Stack
from tests.acceptance.customer import Customer
from tests.verified import assert_consistent


async def test_the_books_agree_after_work(stack: Stack, customer: Customer) -> None:
    """After jobs, and whatever other tests did to this pipeline, every invariant holds and every call is recorded."""
    await asyncio.gather(*(customer.gets_three_activities() for _ in range(5)))
    control = f"{stack.settings.openai_base_url}".replace("/v1", "/control")
    async with aiohttp.ClientSession() as http, http.get(control) as answer:
        calls: int = (await answer.json())["calls"]["received"]
    report = await assert_consistent(stack.settings.database_url, llm_calls=calls, deadline_s=30)
    assert report.findings[0].checked >= 5
