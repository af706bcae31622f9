"""One of two LLM endpoints is away: the whole pipeline goes on with the other, and asks gently whether it is back."""

import asyncio
import json
import math
import os
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from infra.local.organizations import BIRCH
from infra.local.stack import WORKERS, Stack
from infra.settings import Settings
from producers.client import JobRequests, Request
from tests.acceptance.running import running
from tests.away_provider import AwayProvider, away_provider, most_probes, wish
from tests.commands import commands
from tests.conftest import Pool
from tests.verified import assert_consistent
from tests.waiting import wait_for

# 60 for the time that is promised; the waits between probes grow, so a shorter one has more probes for its time.
_AWAY_S = float(os.environ.get("ENDPOINT_AWAY_S", "8"))
_GAP_S = 5.0
_CALL_S = 0.5
_GENERATION = ("generation", "generation-2")
_SLOTS = 8
_FOUND_S = 60.0  # twice the longest wait between probes


@pytest.fixture
async def providers() -> AsyncIterator[tuple[AwayProvider, AwayProvider]]:
    """Two of them."""
    async with away_provider(latency_s=_CALL_S) as first, away_provider(latency_s=_CALL_S) as second:
        yield first, second


@pytest.fixture
def two(providers: tuple[AwayProvider, AwayProvider], tmp_path: Path) -> Iterator[Stack]:
    """A pipeline with two generation workers and two endpoints of equal weight."""
    path = tmp_path / "endpoints.json"
    listed = [
        {"name": name, "base_url": one.url, "key": "k", "model": "teamfit-offline-composer"}
        for name, one in zip(("first", "second"), providers, strict=True)
    ]
    path.write_text(json.dumps({"endpoint": listed}))
    given = Settings(_env_file=None, llm_endpoints=str(path), generation_concurrency=_SLOTS, retry_base_s=0.2)
    parts = (*(part for part in WORKERS if part != "generation"), *_GENERATION)
    with running(Stack(given, durable=False, parts=parts)) as stack:
        yield stack


async def finished(books: Pool) -> int:
    """Return how many runs have been completed."""
    return int(await books.fetchval("SELECT count(*) FROM job_outcomes WHERE outcome = 'completed'"))


def asked(numbers: range) -> list[Request]:
    """Return requests with these numbers."""
    return [Request(organization_id=BIRCH.id, team_id=BIRCH.team.id, requirements=wish(number)) for number in numbers]


async def longest_gap(books: Pool) -> float:
    """Return the longest time between two completions, in seconds."""
    gap = await books.fetchval(
        "SELECT max(one.gap) FROM"
        " (SELECT decided_at - lag(decided_at) OVER (ORDER BY decided_at) AS gap FROM job_outcomes) AS one"
    )
    return float(gap.total_seconds())


async def test_an_endpoint_that_is_away_is_passed_over_and_found_again(
    two: Stack, providers: tuple[AwayProvider, AwayProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Completions go on within 5 s, the fleet probes once a period, and each job has one answer, saved once."""
    first, second = providers
    # Enough work for the time that it is away, all of it at one endpoint, and some before and after.
    jobs = math.ceil((_AWAY_S + 6) * len(_GENERATION) * _SLOTS / _CALL_S)
    async with asyncpg.create_pool(two.settings.database_url, min_size=1, max_size=2) as books:
        await books.execute("UPDATE subscriptions SET monthly_quota = 1000000")
        async with JobRequests.connect(two.settings.broker_url) as requests:
            await requests.submit_many(asked(range(jobs)))
        await wait_for(lambda: first.answered and second.answered, deadline_s=60, what="both endpoints to be used")
        first.is_away, before = True, await finished(books)
        held = "SELECT count(*) FROM llm_holds WHERE passed_at IS NULL AND now() >= held_at + make_interval(secs => $1)"
        await wait_for(lambda: books.fetchval(held, _AWAY_S), deadline_s=_AWAY_S + 60, what="the time away to pass")
        assert await finished(books) > before
        away_s = await books.fetchval("SELECT extract(epoch FROM now() - held_at)::float8 FROM llm_holds")
        first.is_away, answered, probes = False, first.answered, first.probes
        # It is found with its next probe, by when all of these jobs may have ended.
        async with JobRequests.connect(two.settings.broker_url) as requests:
            end = asyncio.get_running_loop().time() + _FOUND_S
            while first.answered == answered and asyncio.get_running_loop().time() < end:
                await requests.submit_many(asked(range(jobs, jobs + _SLOTS)))
                jobs += _SLOTS
                await wait_for(partial(finished_all, books, jobs), deadline_s=120, what="all jobs to be completed")
        assert await longest_gap(books) < _GAP_S
        assert 0 < probes <= most_probes(away_s, len(_GENERATION))
        assert first.answered > answered, "it came back, and no job went there"
        assert first.answered + second.answered == jobs
        calls = await books.fetchrow(
            "SELECT count(*) FILTER (WHERE state = 'saved'), count(*) FILTER (WHERE state = 'failed'), count(*)"
            " FROM generation_attempts"
        )
        assert calls is not None
        assert tuple(calls) == (jobs, first.refused, jobs + first.refused)
        assert await books.fetchval("SELECT count(*) FROM customized_activities") == 3 * jobs
    await assert_consistent(two.settings.database_url, deadline_s=60)
    said = await commands(monkeypatch, DATABASE_URL=two.settings.database_url)("verify", "--settled")
    assert said.exit_code == 0, said.output


async def finished_all(books: Pool, jobs: int) -> bool:
    """Return whether all jobs are completed."""
    return await finished(books) == jobs
