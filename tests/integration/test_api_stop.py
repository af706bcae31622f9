"""Stopping an API process while somebody listens."""

import os
import subprocess
import sys

import aiohttp

from consumers.projection.handlers import Projection
from infra.local.processes import free_port
from infra.postgres import Database
from tests.api_server import SIGNING_KEY, bearer
from tests.facts import JOB, requested
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

                await wait_for(ready, deadline_s=30, what="the API to be ready")
                async with http.get(f"/api/jobs/{JOB}/events", headers=bearer()) as events:
                    assert await events.content.readline() == b"retry: 2000\n"
                    api.terminate()
                    await wait_for(lambda: api.poll() is not None, deadline_s=40, what="the API to stop")
            assert api.returncode == 0
        finally:
            api.kill()
