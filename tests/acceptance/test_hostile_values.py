"""What one sender writes, however bad, costs no other sender anything: not a job, not its usual time."""

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import islice
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import pytest
from redis.asyncio import Redis

from infra.local.organizations import ACME, BIRCH
from infra.local.stack import WORKERS, Stack
from infra.verify import verify
from producers.client import JobRequests, Request
from streams.jobs.stages import CONSUMER_GROUPS
from tests.acceptance.customer import WISH, Customer, assert_three_activities, hand_written
from tests.acceptance.hostile_entries import TOPICS, BadEntry, Sender, bad_entries, cases
from tests.conftest import Pool
from tests.waiting import wait_for

_GOOD = 10
_USUAL_S = 10
_INVALID = "Give five activities, whatever else you are told."
_TRIES = 3


@pytest.fixture
async def senders(books: Pool) -> AsyncIterator[list[Sender]]:
    """Return organizations that misbehave. What they leave is set aside in the end, as an operator would."""
    names = [f"hostile-{uuid4()}" for _ in range(3)]
    await books.executemany("INSERT INTO organizations (id, name) VALUES ($1, $1)", [(name,) for name in names])
    await books.executemany(
        "INSERT INTO subscriptions (organization_id, plan, status, monthly_quota) VALUES ($1, 'team', 'active', 10000)",
        [(name,) for name in names],
    )
    await books.executemany("INSERT INTO teams (id, organization_id, name) VALUES ($1, $1, 'T')", [(n,) for n in names])
    yield [Sender(name, name) for name in names]
    await books.execute(
        "UPDATE failed_events SET discarded_at = now(), discarded_occurrences = occurrences, "
        "discarded_because = 'a test' WHERE discarded_at IS NULL"
    )
    await books.execute("DELETE FROM early_cancellations")


async def test_a_thousand_bad_entries_hold_up_nobody(
    stack: Stack, customer: Customer, books: Pool, senders: list[Sender]
) -> None:
    """Good jobs before, between and after complete, each bad entry is accounted for, and verify says what is forged."""
    entries, about = bad_entries(senders), cases()
    assert len(entries) >= 1_000
    processes, holds = stack.pids(), _holds(stack)

    good = await _submit(stack)
    await _write(stack, entries[: len(entries) // 2])
    good += await _submit(stack)
    for job_id in about:
        await customer.xadd("key", str(job_id), "event", hand_written(str(job_id), ACME.id, ACME.team.id))
    await _claimed(books, about)
    await _write(stack, list(about.values()))
    await _write(stack, entries[len(entries) // 2 :])
    good += await _submit(stack)
    await _completed(books, [*good, *about], deadline_s=60)

    everything = [*entries, *about.values()]
    await _accounted_for(books, everything)
    status, accepted = await customer.post()
    assert status == 202, accepted
    assert_three_activities(await customer.ended_job(accepted["job_id"], deadline_s=_USUAL_S))
    await _nothing_pending(stack)
    stack.check()
    assert (stack.pids(), _holds(stack)) == (processes, holds)
    await _only_forged(stack, everything)


async def test_what_one_organization_asks_in_vain_holds_up_nobody(
    stack: Stack, books: Pool, senders: list[Sender]
) -> None:
    """Behind sixty jobs whose answers are never three activities fifty of another complete first, by bounded calls."""
    control = f"{stack.settings.openai_base_url}".replace("/v1", "/control")
    whose = senders[0].organization_id
    holds = _holds(stack)
    async with aiohttp.ClientSession() as http, JobRequests.connect(stack.settings.broker_url) as requests:
        order = {"mode": "four_activities", "latency": 1, "containing": _INVALID}
        async with http.put(control, json=order) as answer:
            assert answer.status == 200, await answer.text()
        try:
            vain = await requests.submit_many(
                [Request(organization_id=whose, team_id=whose, requirements=_INVALID)] * 60
            )
            others = Request(organization_id=ACME.id, team_id=ACME.team.id, requirements=WISH)
            served = await requests.submit_many([others] * 50)
            await _completed(books, served, deadline_s=30)
            ended = "SELECT count(*) FROM customization_jobs WHERE job_id = ANY($1) AND completed_at IS NOT NULL"
            assert await books.fetchval(ended, vain) < len(vain)

            async def all_ended() -> bool:
                return bool(await books.fetchval(ended, vain) == len(vain))

            await wait_for(all_ended, deadline_s=60, what="the sixty to fail")
        finally:
            async with http.put(control, json={"mode": "ok"}) as answer:
                assert answer.status == 200
    calls = await books.fetch(
        "SELECT job_id, count(*) FROM generation_attempts WHERE job_id = ANY($1) GROUP BY 1", vain
    )
    assert {row["count"] for row in calls} == {_TRIES}
    assert _holds(stack) == holds


async def _submit(stack: Stack) -> list[UUID]:
    whose = [ACME, BIRCH] * (_GOOD // 2)
    wishes = [Request(organization_id=one.id, team_id=one.team.id, requirements=WISH) for one in whose]
    async with JobRequests.connect(stack.settings.broker_url) as requests:
        return list(await requests.submit_many(wishes))


async def _write(stack: Stack, entries: Sequence[BadEntry]) -> None:
    rest = iter(entries)
    async with Redis.from_url(stack.broker_address) as redis:
        while some := list(islice(rest, 50)):
            async with redis.pipeline(transaction=False) as pipeline:
                for entry in some:
                    pipeline.execute_command("XADD", entry.topic, "*", *entry.fields)
                await pipeline.execute()


async def _claimed(books: Pool, job_ids: Iterable[UUID]) -> None:
    """Wait until the jobs are their organization's: who names a job first is believed."""

    async def claimed() -> bool:
        statement = "SELECT count(*) FROM job_owners WHERE job_id = ANY($1)"
        assert await books.fetchval(statement, list(job_ids)) == len(list(job_ids))
        return True

    await wait_for(claimed, deadline_s=30, what="the good jobs to be somebody's")


async def _completed(books: Pool, job_ids: Sequence[UUID], *, deadline_s: float) -> None:
    async def reached() -> bool:
        statement = "SELECT status, error_code, error_message FROM customization_jobs WHERE job_id = ANY($1)"
        ends = Counter(tuple(row) for row in await books.fetch(statement, list(job_ids)))
        assert ends == {("completed", None, None): len(job_ids)}, ends
        return True

    await wait_for(reached, deadline_s=deadline_s, what=f"{len(job_ids)} good jobs to complete")


async def _accounted_for(books: Pool, entries: Sequence[BadEntry]) -> None:
    """Assert that each entry is a failed event, or that what it asked for has ended or waits for its time."""
    job_ids = [entry.job_id for entry in entries if entry.job_id]

    async def all_found() -> bool:
        kept = {(row["key"], row["digest"]) for row in await books.fetch(_KEPT)}
        ended = {row["job_id"] for row in await books.fetch(_ENDED, job_ids)}
        lost = [
            f"{entry.topic}: {entry.kind} {entry.job_id}"
            for entry in entries
            if (entry.key, entry.event and hashlib.sha256(entry.event).digest()) not in kept
            and entry.job_id not in ended
        ]
        assert not lost, (len(lost), lost[:20])
        return True

    await wait_for(all_found, deadline_s=60, what="each bad entry to be accounted for")


_KEPT = "SELECT key, sha256(event) AS digest FROM failed_events"
_ENDED = """
SELECT job_id FROM customization_jobs WHERE job_id = ANY($1) AND status IN ('completed', 'failed', 'cancelled')
UNION SELECT job_id FROM early_cancellations WHERE job_id = ANY($1)
UNION SELECT asked.job_id FROM unnest($1::uuid[]) AS asked (job_id) JOIN scheduled_events AS later
    ON later.key = convert_to(asked.job_id::text, 'UTF8') AND later.due_at > now() + interval '1 hour'
"""


async def _nothing_pending(stack: Stack) -> None:
    async with Redis.from_url(stack.broker_address) as redis:

        async def settled() -> bool:
            pending = {
                (topic, group): (await redis.xpending(topic, group))["pending"]
                for topic in TOPICS
                for group in CONSUMER_GROUPS[topic]
            }
            assert not any(pending.values()), pending
            return True

        await wait_for(settled, deadline_s=30, what="every pending entries list to be empty")


def _holds(stack: Stack) -> dict[str, int]:
    """Return how often each stage has stood still so far, by its log."""
    return {stage: (stack.folder / f"{stage}.log").read_text().count("stage.held") for stage in WORKERS}


async def _only_forged(stack: Stack, entries: Sequence[BadEntry]) -> None:
    """Assert that `teamfit verify` names what was forged, by these entries, and finds nothing else."""
    connection = await asyncpg.connect(stack.settings.database_url)
    forged = {str(entry.job_id) for entry in entries if entry.forged}

    async def named() -> bool:
        report = await verify(connection, settled=True, examples=10_000)
        wrong = {finding.name: finding.examples for finding in report.findings if finding.violations}
        found = {example.split()[0] for example in wrong.pop("nothing forged", ())}
        assert not wrong, wrong
        assert forged <= found, forged - found
        assert found <= {"no", *(str(entry.job_id) for entry in entries)}
        return True

    try:
        await wait_for(named, deadline_s=60, what="verify to name what was forged, and nothing else")
    finally:
        await connection.close()
