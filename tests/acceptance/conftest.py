"""One whole pipeline, in real processes, for all acceptance tests, and a customer who uses it."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from infra.local.stack import Stack
from infra.settings import Settings
from tests.acceptance.customer import Customer
from tests.acceptance.running import SharedPipeline
from tests.conftest import Pool


@pytest.fixture(scope="session", autouse=True)
def _own_surroundings() -> Iterator[None]:
    """Whatever the developer's shell says about keys and servers, these tests use their own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("TEAMFIT_") or name in {
                "OPENAI_API_KEY",
                "OPENAI_BASE_URL",
                "BROKER_URL",
                "DATABASE_URL",
            }:
                patch.delenv(name)
        yield


def _make() -> Stack:
    return Stack(
        Settings(_env_file=None, generation_concurrency=25, retry_base_s=0.2),
        llm_latency_s=0.2,
        broker_parameters="lease=2s",
        durable=False,
    )


_PIPELINE = SharedPipeline(Path(__file__).parent, _make)


@pytest.fixture(scope="module")
def stack(_own_surroundings: None) -> Stack:
    """The running pipeline. A test may kill and restart its parts, and leaves it whole.

    The short lease brings a killed worker's entries back in two seconds; few calls at a time make work last long enough
    to be interrupted.
    """
    return _PIPELINE.get()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Stop the pipeline with the last test of this folder."""
    _PIPELINE.stop_before(nextitem)


@pytest.fixture
async def customer(stack: Stack) -> AsyncIterator[Customer]:
    """Someone who asks for activities and reads about them over HTTP."""
    async with aiohttp.ClientSession(stack.api_url) as http:
        yield Customer(stack, http)


@pytest.fixture
async def books(stack: Stack) -> AsyncIterator[Pool]:
    """The pipeline's database, for looking at what no customer sees."""
    async with asyncpg.create_pool(stack.settings.database_url, min_size=1, max_size=3) as pool:
        yield pool


@pytest.fixture
async def forgery(books: Pool) -> AsyncIterator[None]:
    """Let a test leave forged events behind: they are set aside when it has ended, as an operator would."""
    yield
    await books.execute(
        "UPDATE failed_events SET discarded_at = now(), discarded_occurrences = occurrences, "
        "discarded_because = 'a test' WHERE discarded_at IS NULL"
    )
    await books.execute("DELETE FROM early_cancellations")
