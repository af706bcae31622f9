"""Reads of jobs that come at the same time share a statement, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from consumers.projection import shared_reads
from consumers.projection.shared_reads import SharedReads
from consumers.projection.status import JobStatus
from infra.auth import JOBS, Caller
from infra.errors import DependencyDown, JobNotFound
from infra.postgres import Database

ACME = Caller("anna", "acme", frozenset({JOBS}))
NOW = datetime.now(UTC)
WAYS_AT_ONCE = 2


class Postgres:
    """Has completed jobs of acme. A statement sees them as they are when it begins, and ends when it is let go."""

    def __init__(self) -> None:
        self.runs: dict[UUID, int] = {}
        self.asked: list[list[UUID]] = []
        self.goes_on = asyncio.Event()
        self.fails: dict[UUID, Exception] = {}

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["Postgres"]:
        yield self

    async def fetch(self, _sql: str, job_ids: list[UUID], organization_ids: list[str], _ownerless: object) -> list[Any]:
        self.asked.append(job_ids)
        rows = [
            {"place": place, "job_id": job_id, "organization_id": "acme", "team_id": "t", "run": self.runs[job_id]}
            | {"status": "completed", "error_code": None, "error_message": None, "activities": None}
            | dict.fromkeys(("created_at", "started_at", "completed_at"), NOW)
            for place, (job_id, organization_id) in enumerate(zip(job_ids, organization_ids, strict=True), 1)
            if job_id in self.runs and organization_id == "acme"
        ]
        await self.goes_on.wait()
        for job_id in job_ids:
            if job_id in self.fails:
                raise self.fails[job_id]
        return rows

    async def fetchrow(self, _sql: str, *_values: object) -> None:
        """Say that nothing else is known of a job."""


@pytest.fixture
async def postgres() -> Postgres:
    """What answers."""
    return Postgres()


@pytest.fixture
async def reads(postgres: Postgres) -> SharedReads:
    """What is tried."""
    return SharedReads(cast("Database", postgres))


async def begun(reads: SharedReads, jobs: list[UUID], caller: Caller = ACME) -> list[asyncio.Task[JobStatus]]:
    """Begin to read each, every other in part, and let them come as far as they can."""
    reading = [asyncio.create_task(reads.job(job, caller, whole=place % 2 == 0)) for place, job in enumerate(jobs)]
    for _ in range(5):
        await asyncio.sleep(0)
    return reading


def made(postgres: Postgres, count: int) -> list[UUID]:
    """Store so many jobs."""
    jobs = [uuid4() for _ in range(count)]
    postgres.runs |= dict.fromkeys(jobs, 1)
    return jobs


async def test_those_who_come_meanwhile_go_together(postgres: Postgres, reads: SharedReads) -> None:
    """Each has the own job; of another organization's, or of none, no one hears."""
    jobs = made(postgres, 50)
    reading = await begun(reads, jobs)
    others = await begun(reads, [jobs[0], uuid4()], Caller("eve", "eves", frozenset({JOBS})))
    postgres.goes_on.set()
    assert [job.job_id for job in await asyncio.gather(*reading)] == jobs
    for answer in await asyncio.gather(*others, return_exceptions=True):
        assert isinstance(answer, JobNotFound)
    assert [len(asked) for asked in postgres.asked] == [1] * WAYS_AT_ONCE + [50 + 2 - WAYS_AT_ONCE]


async def test_a_statement_takes_no_more_than_it_should(postgres: Postgres, reads: SharedReads) -> None:
    """More than fit into one are read by the next, and all of them are."""
    jobs = made(postgres, 350)
    reading = await begun(reads, jobs)
    postgres.goes_on.set()
    assert [job.job_id for job in await asyncio.gather(*reading)] == jobs
    assert max(len(asked) for asked in postgres.asked) == shared_reads._MOST
    assert sum(len(asked) for asked in postgres.asked) == len(jobs)


async def test_who_comes_later_does_not_get_what_was_read_before(postgres: Postgres, reads: SharedReads) -> None:
    """A statement under way may have missed what the caller has just been told of."""
    (job,) = made(postgres, 1)
    earlier = await begun(reads, [job] * 10)
    postgres.runs[job] = 2
    later = await begun(reads, [job] * 10)
    postgres.goes_on.set()
    assert {one.run for one in await asyncio.gather(*later)} == {2}
    assert {one.run for one in await asyncio.gather(*earlier)} == {1, 2}


async def test_a_row_that_cannot_be_read_fails_no_one_else(postgres: Postgres, reads: SharedReads) -> None:
    """The others are read apart from it."""
    jobs = made(postgres, 10)
    postgres.fails[jobs[5]] = ValueError("no JSON")
    reading = await begun(reads, jobs)
    postgres.goes_on.set()
    answers = await asyncio.gather(*reading, return_exceptions=True)
    assert isinstance(answers.pop(5), ValueError)
    assert [cast("JobStatus", one).job_id for one in answers] == jobs[:5] + jobs[6:]


async def test_all_hear_of_an_outage(postgres: Postgres, reads: SharedReads) -> None:
    """And it is asked again by those who come then."""
    jobs = made(postgres, 10)
    postgres.fails = dict.fromkeys(jobs, DependencyDown("postgres", "away"))
    reading = await begun(reads, jobs)
    postgres.goes_on.set()
    answers = await asyncio.gather(*reading, return_exceptions=True)
    assert [str(one) for one in answers] == ["away"] * len(jobs)
    together = answers[WAYS_AT_ONCE:]
    assert len({id(one) for one in together}) == len(together)
    postgres.fails.clear()
    assert (await reads.job(jobs[0], ACME)).job_id == jobs[0]


async def test_no_one_waits_for_ever(postgres: Postgres, reads: SharedReads, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for statements that never end; once they do, reads go on."""
    monkeypatch.setattr(shared_reads, "_LONGEST_S", 0.01)
    jobs = made(postgres, 3)
    *stuck, waiting = await begun(reads, jobs)
    with pytest.raises(DependencyDown, match="has ended in"):
        await waiting
    postgres.goes_on.set()
    assert [job.job_id for job in await asyncio.gather(*stuck)] == jobs[:2]
    assert (await reads.job(jobs[2], ACME)).job_id == jobs[2]
    assert len(postgres.asked) == len(jobs)


async def test_whose_client_is_gone_is_not_read_for(postgres: Postgres, reads: SharedReads) -> None:
    """Of those under way and of those that wait."""
    jobs = made(postgres, 6)
    reading = await begun(reads, jobs)
    for gone in (reading[0], reading[2], reading[3]):
        gone.cancel()
    await asyncio.sleep(0)
    postgres.goes_on.set()
    answers = await asyncio.gather(*reading, return_exceptions=True)
    assert [isinstance(one, asyncio.CancelledError) for one in answers] == [True, False, True, True, False, False]
    assert [job for asked in postgres.asked for job in asked] == [jobs[0], jobs[1], jobs[4], jobs[5]]
