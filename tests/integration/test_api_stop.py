"""Stopping an API process while somebody waits or listens."""

import asyncio
import os
import re
import subprocess
import sys

import aiohttp

from consumers.projection.handlers import Projection
from infra.api import create_api
from infra.api.leaving import Server
from infra.api.server import configuration
from infra.local.processes import free_port
from infra.postgres import Database
from tests.api_server import SIGNING_KEY, api_settings, bearer
from tests.facts import JOB, requested, started
from tests.waiting import wait_for


async def test_a_listener_does_not_keep_the_api_from_stopping(database_url: str, redis_url: str) -> None:
    """The events of a job may go on for ten minutes; SIGTERM ends the process in good order long before."""
    opened = Database(database_url, size=1)
    await Projection(opened).project([requested()])
    await opened.close()
    port = free_port()
    environment = {
        **os.environ,
        "DATABASE_URL": database_url,
        "BROKER_URL": redis_url,
        "TEAMFIT_SIGNING_KEY": SIGNING_KEY,
    }
    command = [sys.executable, "-m", "infra.cli", "api", "--port", str(port)]
    with subprocess.Popen(command, env=environment) as api:
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:

                async def ready() -> bool:
                    try:
                        async with http.get("/readyz") as answer:
                            return answer.status == 200
                    except aiohttp.ClientError:
                        return False

                await wait_for(ready, deadline_s=60, what="the API to be ready")
                async with http.get(f"/api/jobs/{JOB}/events", headers=bearer()) as events:
                    assert await events.content.readline() == b"retry: 2000\n"
                    api.terminate()
                    await wait_for(lambda: api.poll() is not None, deadline_s=40, what="the API to stop")
            assert api.returncode == 0
        finally:
            api.kill()


async def test_a_rollout_cuts_off_nobody_who_waits(database_url: str) -> None:
    """Who waits for a job's end, or for a change, is told how it is now; who listens, to come back.

    All of them could have gone on for much longer than the process takes to stop.
    """
    opened = Database(database_url, size=1)
    await Projection(opened).project([requested(), started()])
    await opened.close()
    settings = api_settings(database_url=database_url)
    server = Server(configuration(create_api(settings), settings, port=0))
    running = asyncio.create_task(server.serve())
    await wait_for(lambda: server.started, what="the API to start")
    port = server.servers[0].sockets[0].getsockname()[1]
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        async with http.get(f"/api/jobs/{JOB}", headers=bearer()) as answer:
            tag = answer.headers["ETag"]

        async def ask(**headers: str) -> tuple[int, str]:
            wait = {"Prefer": "wait=50", **headers, **bearer()}
            async with http.get(f"/api/jobs/{JOB}", headers=wait) as answer:
                return answer.status, (await answer.json())["status"] if answer.status == 200 else ""

        streams = [await http.get(f"/api/jobs/{JOB}/events", headers=bearer()) for _ in range(5)]
        for stream in streams:
            await stream.content.readuntil(b"event: started\n")
        ends = [asyncio.create_task(ask()) for _ in range(20)]
        changes = [asyncio.create_task(ask(**{"If-None-Match": tag})) for _ in range(5)]
        await wait_for(lambda: len(server.server_state.tasks) == 30, deadline_s=30, what="all requests to have begun")
        server.should_exit = True
        async with asyncio.timeout(60):
            assert await asyncio.gather(*ends) == [(200, "processing")] * 20
            assert await asyncio.gather(*changes) == [(304, "")] * 5
            for stream in streams:
                rest = (await stream.read()).decode()  # it would raise if it were cut off
                assert re.search(r"\n: not the end: come back with Last-Event-ID\nretry: \d+\n\n$", rest), rest
            await running
