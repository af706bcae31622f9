"""A generation worker that alone cannot call its LLM keeps no run from the others."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from infra.local.processes import free_port
from infra.operations.llm import endpoints
from infra.postgres import Database
from streams.jobs.events import JobAccepted, JobCompleted, parse_event
from tests.facts import enter
from tests.integration.generation.conftest import Endpoint, Pool, WorkerStarter, accepted, write
from tests.stream_entries import entries_of
from tests.waiting import wait_for

_JOBS = 16
_TOPIC, _GROUP = "job-accepted", "generation"
_LEASE_MS = 15_000
_CASES = Path(__file__).parents[2] / "cases"
_CASE: dict[str, dict[str, str]] = json.loads((_CASES / "settings/base-url-no-scheme.json").read_text())

# Such a worker has one of these addresses; `{}` is that of an endpoint that knows no /v2 and refuses all keys.
_FAMILY = {
    "no scheme": "localhost",
    "no scheme, a port": _CASE["environment"]["OPENAI_BASE_URL"],
    "nothing listens": "http://127.0.0.1:1/v1",
    "no such path": "{}/v2",
    "wrong key": "{}/v1",
}


@dataclass(frozen=True)
class Worker:
    """A worker process and where its pages are."""

    process: asyncio.subprocess.Process
    port: int

    async def problems(self) -> Sequence[str]:
        """Return why it stands still, or nothing."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.port}/readyz") as answer,
            ):
                return list((await answer.json())["problems"])
        except aiohttp.ClientError:
            return ()

    async def is_held(self) -> bool:
        return any("generation is held" in one for one in await self.problems())


async def started(start_worker: WorkerStarter, variables: Mapping[str, str], **transport: str) -> Worker:
    """Start a worker with a page of its own, whose retries are due at once."""
    port = free_port()
    process = await start_worker(variables={"TEAMFIT_WORKER_PORT": str(port), **variables}, **transport)
    return Worker(process, port)


async def bad(start_worker: WorkerStarter, name: str, refusing: Endpoint, **transport: str) -> Worker:
    """Start a worker that cannot call its LLM."""
    await refusing.tell("401")
    return await started(start_worker, {"OPENAI_BASE_URL": wrong_address(name, refusing)}, **transport)


def wrong_address(name: str, refusing: Endpoint) -> str:
    """Return the address that such a worker has."""
    return _FAMILY[name].format(f"http://127.0.0.1:{refusing.port}")


async def says_what_is_wrong(database_url: str, address: str) -> bool:
    """Return whether `teamfit llm endpoints` says why this one is not called, and says no such thing of others."""
    database = Database(database_url, size=1)
    try:
        held = {one.endpoint: one.held for one in await endpoints(database, 24)}
    finally:
        await database.close()
    assert "OPENAI_" in (held.pop(address, None) or "")
    # The other's calls are told with the first that follows after five seconds.
    return all(why is None for why in held.values())


async def send(database: Pool, redis_url: str) -> list[JobAccepted]:
    """Have jobs accepted."""
    events = [accepted() for _ in range(_JOBS)]
    await enter(database, *events)
    await write(redis_url, _TOPIC, *(event.encode() for event in events))
    return events


async def handed_back(redis: "Redis") -> bool:
    """Whether all that was handed out has been handed back, as if it had never been."""
    rows: list[dict[str, Any]] = await redis.xpending_range(_TOPIC, _GROUP, "-", "+", 1000)
    unread = int((await redis.xinfo_groups(_TOPIC))[0]["lag"])
    assert all(row["time_since_delivered"] > _LEASE_MS for row in rows), rows
    assert all(row["times_delivered"] == 0 for row in rows), rows
    return len(rows) + unread >= _JOBS


async def all_completed(database: Pool, number: int) -> bool:
    """Return whether so many runs are completed."""
    return bool(await database.fetchval("SELECT count(*) FROM job_outcomes WHERE outcome = 'completed'") == number)


async def assert_nothing_doubled(database: Pool, redis_url: str, events: Sequence[JobAccepted]) -> None:
    """Check that each job has one answer and one end, and that no attempt was spent on the way."""
    async with Redis.from_url(redis_url) as redis:
        await wait_for(lambda: nothing_pending(redis), what="all to be acknowledged")
    assert await database.fetchval("SELECT count(*) FROM customized_activities") == 3 * len(events)
    assert await database.fetchval("SELECT count(*) FROM generation_attempts WHERE state = 'saved'") == len(events)
    left = "SELECT count(*) FROM generation_attempts WHERE maybe_billed OR state NOT IN ('saved', 'failed')"
    assert not await database.fetchval(left)
    assert not await database.fetchval("SELECT count(*) FROM scheduled_events")
    assert not await database.fetchval("SELECT count(*) FROM failed_events")
    facts = [parse_event(entry[b"event"]) for entry in await entries_of(redis_url, "job-events")]
    ended = [fact.job_id for fact in facts if isinstance(fact, JobCompleted)]
    assert sorted(ended) == sorted(event.job_id for event in events)


async def slots_are(database: Pool, *told: int) -> bool:
    """Return whether the workers have told the dispatcher that they take so many runs."""
    rows = await database.fetch("SELECT slots FROM dispatch_workers ORDER BY slots")
    assert [row["slots"] for row in rows] == sorted(told)
    return True


@pytest.mark.parametrize("name", _FAMILY)
async def test_what_it_cannot_do_others_do(
    start_worker: WorkerStarter,
    database: Pool,
    database_url: str,
    redis_url: str,
    other_endpoint: Endpoint,
    name: str,
) -> None:
    """It hands all back that it has taken, says why, and takes no more. A good worker does that and what follows.

    It used to keep what it had taken, and to go on taking, while it waited: 16 jobs took 41 s beside an idle worker.
    """
    wrong = await bad(start_worker, name, other_endpoint)
    events = await send(database, redis_url)
    async with Redis.from_url(redis_url) as redis:
        await wait_for(wrong.is_held, deadline_s=60, what="the worker to say why")
        await wait_for(lambda: handed_back(redis), what="all of its entries to be handed back")
        await wait_for(lambda: slots_are(database, 1), what="the worker to tell that it takes as good as nothing")
        await started(start_worker, {"TEAMFIT_GENERATION_CONCURRENCY": "4"})
        await wait_for(lambda: all_completed(database, _JOBS), deadline_s=60, what="the jobs of before")
        events += await send(database, redis_url)
        await wait_for(lambda: all_completed(database, 2 * _JOBS), deadline_s=60, what="the jobs of after")
    assert await wrong.is_held()
    assert wrong.process.returncode is None
    await wait_for(lambda: says_what_is_wrong(database_url, wrong_address(name, other_endpoint)), what="the reason")
    assert await slots_are(database, 1, 4)
    await assert_nothing_doubled(database, redis_url, events)


async def nothing_pending(redis: "Redis") -> bool:
    """Return whether nobody holds anything."""
    return bool((await redis.xpending(_TOPIC, _GROUP))["pending"] == 0)


@pytest.mark.parametrize("name", _FAMILY)
async def test_where_none_can_do_it_nothing_spins(
    start_worker: WorkerStarter, database: Pool, redis_url: str, other_endpoint: Endpoint, name: str
) -> None:
    """Two such workers leave the entries where they are and ask their endpoints, not the broker. One more does all."""
    wrong = [await bad(start_worker, name, other_endpoint) for _ in range(2)]
    events = await send(database, redis_url)
    async with Redis.from_url(redis_url) as redis:
        for one in wrong:
            # Both are to have had some: what the first has handed back, the second takes.
            await wait_for(one.is_held, deadline_s=60, what="both workers to say why")
        await wait_for(lambda: handed_back(redis), what="all of their entries to be handed back")
        before, told = await commands(redis), await told_at(database)

        async def time_passes() -> bool:
            return bool(await told_at(database) > told)

        await wait_for(time_passes, deadline_s=60, what="both to have told their slots again")
        after = await commands(redis)
        asked = {command: after[command] - before[command] for command in after}
        assert sum(asked.values()) <= 4, asked
        assert await handed_back(redis)
        await started(start_worker, {})
        await wait_for(lambda: all_completed(database, _JOBS), deadline_s=60, what="all jobs")
    await assert_nothing_doubled(database, redis_url, events)


async def told_at(database: Pool) -> Any:
    """Return when the last of the workers to tell its slots has told them."""
    return await database.fetchval("SELECT min(seen_at) FROM dispatch_workers")


async def commands(redis: "Redis") -> dict[str, int]:
    """Return how often the broker was asked for entries."""
    told = await redis.info("commandstats")
    return {one: told.get(f"cmdstat_{one}", {"calls": 0})["calls"] for one in ("xreadgroup", "xclaim", "xpending")}


async def test_it_goes_on_when_its_endpoint_is_back(
    start_worker: WorkerStarter, database: Pool, redis_url: str, other_endpoint: Endpoint
) -> None:
    """It asks by itself, with nothing in hand: once it is answered it does the jobs, and says that all is well."""
    wrong = await bad(start_worker, "wrong key", other_endpoint)
    events = await send(database, redis_url)
    await wait_for(wrong.is_held, deadline_s=60, what="the worker to say why")
    await other_endpoint.tell("ok")
    await wait_for(lambda: all_completed(database, _JOBS), deadline_s=60, what="all jobs")
    await assert_nothing_doubled(database, redis_url, events)
    assert not await wrong.problems()


async def test_it_is_well_again_though_others_have_done_all(
    start_worker: WorkerStarter, database: Pool, redis_url: str, other_endpoint: Endpoint
) -> None:
    """No job is left by which it would find out that its endpoint is back."""
    wrong = await bad(start_worker, "wrong key", other_endpoint)
    await send(database, redis_url)
    await wait_for(wrong.is_held, deadline_s=60, what="the worker to say why")
    await started(start_worker, {"TEAMFIT_GENERATION_CONCURRENCY": "4"})
    await wait_for(lambda: all_completed(database, _JOBS), deadline_s=60, what="all jobs")
    assert await wrong.is_held()
    await other_endpoint.tell("ok")

    async def is_well() -> bool:
        return not await wrong.is_held()

    await wait_for(is_well, deadline_s=90, what="the worker to find out")
    await wait_for(lambda: slots_are(database, 4, 600), what="the worker to tell that it takes runs again")
