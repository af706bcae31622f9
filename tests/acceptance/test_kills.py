"""Whatever is killed in mid-flight, every accepted job completes and the quota adds up."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import aiohttp

from infra.local.stack import API, WORKERS, Stack
from producers.client import JobRequests, Request
from tests.acceptance.customer import Customer, assert_three_activities
from tests.conftest import Pool
from tests.waiting import wait_for

_JOBS = 500


async def test_every_part_is_killed_in_turn_in_the_middle_of_500_jobs(
    stack: Stack, customer: Customer, books: Pool
) -> None:
    """`kill -9` of each stage and of the API, and a restart: each job completes once, and charged = completed.

    The organization's quota is exactly the number of jobs, so one unit reserved twice or leaked would refuse a job.
    """
    await _add_organization(books, "killed", quota=_JOBS)
    await _set_llm_latency(stack, 0.5)
    parts = (*WORKERS, API)
    job_ids: list[UUID] = []
    async with JobRequests.connect(stack.settings.broker_url) as requests:
        for index, part in enumerate(parts):
            batch = [
                _request("killed", number)
                for number in range(_JOBS * index // len(parts), _JOBS * (index + 1) // len(parts))
            ]
            before = await requests.submit_many(batch[:60])
            if part != "quota":
                # Generation lasts longest, so now every later stage has work in hand; quota has it at once.
                await _until_some_started(books, before)
            stack.kill(part)
            job_ids += [*before, *await requests.submit_many(batch[60:])]
            await asyncio.to_thread(stack.start, part)
    await _until_all_completed(books, job_ids)
    await _set_llm_latency(stack, None)

    await _assert_books_are_right(books, "killed", job_ids)
    for job_id in job_ids[:: _JOBS // 10]:
        assert_three_activities(await customer.job(job_id, organization_id="killed"))


async def test_a_restart_of_the_broker_loses_nothing(stack: Stack, books: Pool) -> None:
    """The broker dies in mid-flight and comes back with its append-only file: each job completes, charged once."""
    assert stack.valkey is not None
    await _add_organization(books, "restarted", quota=60)
    async with JobRequests.connect(stack.settings.broker_url) as requests:
        job_ids = await requests.submit_many(_request("restarted", number) for number in range(60))
    await _until_some_started(books, job_ids)
    stack.valkey.kill()
    await asyncio.to_thread(stack.valkey.restart)
    await _until_all_completed(books, job_ids)
    await _assert_books_are_right(books, "restarted", job_ids)


def _request(organization_id: str, number: int) -> Request:
    return Request(
        organization_id=organization_id,
        team_id=f"{organization_id}-team",
        requirements=f"Something outdoors for 6 people, variant {number}",
        idempotency_key=str(number),
    )


async def _add_organization(books: Pool, name: str, *, quota: int) -> None:
    await books.execute("INSERT INTO organizations (id, name) VALUES ($1, $1)", name)
    await books.execute(
        "INSERT INTO subscriptions (organization_id, plan, status, monthly_quota) VALUES ($1, 'team', 'active', $2)",
        name,
        quota,
    )
    await books.execute("INSERT INTO teams (id, organization_id, name) VALUES ($2, $1, 'Team')", name, f"{name}-team")


async def _set_llm_latency(stack: Stack, latency_s: float | None) -> None:
    control = f"{stack.settings.openai_base_url}".replace("/v1", "/control")
    async with aiohttp.ClientSession() as http, http.put(control, json={"latency": latency_s}) as answer:
        assert answer.status == 200


async def _until_some_started(books: Pool, job_ids: Sequence[UUID]) -> None:
    async def some_started() -> bool:
        started: int = await books.fetchval(
            "SELECT count(*) FROM generation_attempts WHERE job_id = ANY($1)", list(job_ids)
        )
        return started > 0

    await wait_for(some_started, what="the generation of a job to start")


async def _until_all_completed(books: Pool, job_ids: Sequence[UUID]) -> None:
    async def all_completed() -> bool:
        rows = await books.fetch(
            "SELECT status, count(*) FROM customization_jobs WHERE job_id = ANY($1) GROUP BY status", list(job_ids)
        )
        assert {row[0]: row[1] for row in rows} == {"completed": len(job_ids)}
        return True

    await wait_for(all_completed, deadline_s=60, what="all jobs to complete")


async def _assert_books_are_right(books: Pool, organization_id: str, job_ids: Sequence[UUID]) -> None:
    """Three activities a job, and a quota that was charged once for each."""
    activities = await books.fetch(
        "SELECT job_id, count(*) FROM customized_activities WHERE job_id = ANY($1) GROUP BY job_id", list(job_ids)
    )
    assert {row[0]: row[1] for row in activities} == dict.fromkeys(job_ids, 3)

    async def settled() -> bool:
        usage = await books.fetch(
            "SELECT sum(charged) AS charged, sum(reserved) AS reserved FROM quota_usage WHERE organization_id = $1",
            organization_id,
        )
        assert [tuple(row) for row in usage] == [(len(job_ids), 0)]
        return True

    await wait_for(settled, what="the quota to be settled")
    states = await books.fetch(
        "SELECT state, count(*) FROM quota_ledger WHERE organization_id = $1 GROUP BY state", organization_id
    )
    assert {row[0]: row[1] for row in states} == {"charged": len(job_ids)}
    assert await books.fetchval("SELECT count(*) FROM failed_events WHERE job_id = ANY($1)", list(job_ids)) == 0
