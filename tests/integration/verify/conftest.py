"""A pipeline with three jobs in it, each ended in another way, and a checker."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg
import pytest

from infra.verify import Finding, Report, verify
from streams.jobs.events import JobRequested
from tests.conftest import Pool
from tests.integration.pipeline_scene import Pipeline, pipeline_on
from tests.integration.quota_scene import add_organization

Checker: TypeAlias = Callable[..., Awaitable[Report]]


@dataclass
class Jobs:
    """The story so far: one job completed, one failed and completed on its replay, one was refused."""

    done: JobRequested
    replayed: JobRequested
    refused: JobRequested


@pytest.fixture
async def pipeline(database: Pool, database_url: str) -> AsyncIterator[Pipeline]:
    """The handlers, a customer with ten units, and one without a paid plan."""
    await add_organization(database, "acme", monthly_quota=10)
    await add_organization(database, "free", plan="free")
    async with pipeline_on(database_url) as opened:
        yield opened


@pytest.fixture
async def jobs(pipeline: Pipeline) -> Jobs:
    """The three jobs, told to the end."""
    done = await pipeline.complete()
    first = await pipeline.fail()
    replayed = await pipeline.complete(await pipeline.accept(job_id=first.job_id, run=2))
    refused = await pipeline.accept("free")
    await pipeline.refuse(refused)
    return Jobs(done, replayed, refused)


@pytest.fixture
async def check(database_url: str) -> AsyncIterator[Checker]:
    """Run the check on a connection of its own."""
    connection = await asyncpg.connect(database_url)

    async def run(**options: Any) -> Report:
        return await verify(connection, **options)

    yield run
    await connection.close()


def finding(report: Report, name: str) -> Finding:
    """Return one finding."""
    return next(one for one in report.findings if one.name == name)
