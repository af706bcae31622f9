"""Stopping a worker that stands still, because what it needs is away."""

import os
import subprocess
import sys
from uuid import uuid4

import aiohttp
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from infra.local.processes import free_port
from streams.jobs.events import JobId
from streams.jobs.facts import job_requested
from tests.integration.test_scheduled import NOON
from tests.waiting import wait_for

_ENTRIES = 3


async def test_a_held_worker_hands_its_entries_back_and_stops_at_once(redis_url: str) -> None:
    """Holding is no work, so it needs no drain: long before that is over, the worker has gone in good order.

    It used to wait for the whole of its drain, and an orchestrator with less patience killed it. The entries are free
    for the next worker at once, and their delivery counts are what they were before this one had them.
    """
    port = free_port()
    environment = {
        **os.environ,
        "BROKER_URL": f"{redis_url}?drain=100s",
        "DATABASE_URL": "postgresql://127.0.0.1:1/none",
        "TEAMFIT_WORKER_PORT": str(port),
    }
    command = [sys.executable, "-m", "faust", "-A", "consumers.quota", "worker", "-l", "warn"]
    with subprocess.Popen(command, env=environment) as worker:
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as pages, Redis.from_url(redis_url) as redis:
                for _ in range(_ENTRIES):
                    event = job_requested(
                        job_id=JobId(uuid4()), organization_id="acme", team_id="t", requirements="a game", at=NOON
                    )
                    await redis.xadd("job-requests", {"key": event.key, "event": event.encode()})

                async def held() -> bool:
                    try:
                        async with pages.get("/readyz") as answer:
                            problems = (await answer.json())["problems"]
                        pending = await redis.xpending("job-requests", "quota")
                    except (aiohttp.ClientError, ResponseError):  # neither the pages nor the group are there yet
                        return False
                    return pending["pending"] == _ENTRIES and any("DATABASE_URL" in one for one in problems)

                await wait_for(held, deadline_s=30, what="the worker to be held with all entries in its hands")
                worker.terminate()
                await wait_for(lambda: worker.poll() is not None, deadline_s=30, what="the held worker to stop")
                assert worker.returncode == 0
                entries = await redis.xpending_range("job-requests", "quota", "-", "+", 10)
                assert [entry["times_delivered"] for entry in entries] == [0] * _ENTRIES
                # Past the lease, which is 15 s: whoever looks next takes them over.
                assert all(int(entry["time_since_delivered"]) > 15_000 for entry in entries)
        finally:
            worker.kill()
