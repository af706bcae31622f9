"""What a worker says of itself over HTTP."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import aiohttp
import psutil
import pytest
from redis.asyncio import Redis

from infra.local.processes import free_port
from streams.jobs.events import JobId
from streams.jobs.facts import job_requested
from tests.integration.test_scheduled import NOON
from tests.waiting import wait_for

_ROOT = str(Path(__file__).parents[2])


@pytest.fixture
def worker(redis_url: str, tmp_path: Path) -> Iterator[str]:
    """A quota worker without a database, started as an operator would; yields the address of its pages.

    Its working directory stays as it was: Faust would make folders there for tables that nobody has.
    """
    port = free_port()
    addresses = {"BROKER_URL": f"{redis_url}?drain=1s", "DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    environment = {**os.environ, **addresses, "TEAMFIT_WORKER_PORT": str(port), "PYTHONPATH": _ROOT}
    faust = Path(sys.executable).with_name("faust")
    process = subprocess.Popen([faust, "-A", "consumers.quota", "worker", "-l", "warn"], env=environment, cwd=tmp_path)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
    assert list(tmp_path.iterdir()) == []


async def test_nobody_but_this_machine_reaches_a_workers_port(worker: str) -> None:
    """Its pages ask for no token, so unless a setting opens it, the port listens on the loopback address alone."""
    port = int(worker.rpartition(":")[2])

    def addresses() -> set[str]:
        listening = psutil.net_connections("tcp")
        return {one.laddr.ip for one in listening if one.status == psutil.CONN_LISTEN and one.laddr.port == port}

    assert await wait_for(addresses, deadline_s=30, what="the worker to listen") == {"127.0.0.1"}


async def test_a_worker_says_what_it_waits_for(worker: str, redis_url: str) -> None:
    """Ready while it can work; when Postgres is away it turns red and names it; it lives all the while."""
    async with aiohttp.ClientSession(worker) as pages, Redis.from_url(redis_url) as redis:

        async def status(path: str) -> int | None:
            try:
                async with pages.get(path) as answer:
                    return answer.status
            except aiohttp.ClientError:
                return None

        async def ready_is(expected: int) -> bool:
            return await status("/readyz") == expected

        await wait_for(lambda: ready_is(200), deadline_s=30, what="the worker to be ready")
        event = job_requested(
            job_id=JobId(uuid4()), organization_id="acme", team_id="t", requirements="a game", at=NOON
        )
        await redis.xadd("job-requests", {"key": event.key, "event": event.encode()})
        await wait_for(lambda: ready_is(503), deadline_s=15, what="the worker to say that it is held")
        async with pages.get("/readyz") as readyz, pages.get("/metrics") as metrics:
            assert any("DATABASE_URL" in problem for problem in (await readyz.json())["problems"])
            numbers = await metrics.text()
        assert "teamfit_outcomes_total" in numbers
        assert 'teamfit_stage_held{group="quota",reason="postgres"} 1.0' in numbers
        assert 'teamfit_stage_held{group="quota",reason="broker"} 0.0' in numbers
        assert 'teamfit_group_pending_entries{group="quota",topic="job-requests"} 1.0' in numbers
        assert await status("/healthz") == 200


def test_a_taken_port_is_said_in_a_line() -> None:
    """The worker's port and the variable that changes it, instead of Faust's 260 lines."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        environment = {**os.environ, "TEAMFIT_WORKER_PORT": str(port)}
        command = [sys.executable, "-m", "infra.cli", "worker", "quota"]
        done = subprocess.run(command, env=environment, cwd=_ROOT, capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert line.startswith(f"teamfit: port {port} on 127.0.0.1 is taken")
    assert "TEAMFIT_WORKER_PORT" in line
