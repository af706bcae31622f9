"""Stages in processes that are forked from one: each dies alone, none outlives its parent, and nothing is lost."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiohttp
import psutil
import pytest

from infra.local.environment import environment
from infra.local.processes import HOST, free_port
from infra.local.stack import API, PROCESSES, WORKERS, Stack
from infra.settings import Settings
from tests.acceptance.customer import sixty_jobs
from tests.acceptance.running import running
from tests.waiting import wait_for

_START_S = 60.0


@pytest.fixture(scope="module")
def ports() -> Sequence[int]:
    """A port for the health and metrics of each stage, one after the other."""
    drawn = [free_port() for _ in WORKERS]
    while drawn != [*range(drawn[0], drawn[0] + len(drawn))]:
        drawn = [*drawn[1:], free_port()]
    return drawn


@pytest.fixture(scope="module")
def forked(ports: Sequence[int], _own_surroundings: None) -> Iterator[Stack]:
    """The pipeline: the API, and a parent of six stages."""
    stack = Stack(
        Settings(_env_file=None, generation_concurrency=10),
        llm_latency_s=0.1,
        broker_parameters="lease=2s",
        durable=False,
        parts=(PROCESSES, API),
        variables=lambda part: {"TEAMFIT_WORKER_PORT": str(ports[0])} if part == PROCESSES else {},
    )
    with running(stack):
        yield stack


def _stages(stack: Stack) -> list[psutil.Process]:
    return [*psutil.Process(stack.pids()[PROCESSES]).children()]


async def test_each_stage_has_a_port_and_metrics_of_its_own(forked: Stack, ports: Sequence[int]) -> None:
    """The first has the port of the settings, and the others have the next ones."""
    async with aiohttp.ClientSession() as http:
        for stage, port in zip(WORKERS, ports, strict=True):
            async with http.get(f"http://{HOST}:{port}/readyz") as ready:
                assert await ready.json() == {"status": "ready", "problems": [], "paused": []}
            async with http.get(f"http://{HOST}:{port}/metrics") as answer:
                metrics = await answer.text()
            told = {one for one in WORKERS if f'teamfit_stage_held{{group="{one}",reason="postgres"}}' in metrics}
            assert told == {stage}


async def test_a_stage_that_dies_is_started_again_alone(forked: Stack) -> None:
    """Whichever it is, by `kill -9` or by SIGTERM; the ready file is away until it consumes again."""
    ready = forked.folder / f"{PROCESSES}.ready"
    for end in (signal.SIGKILL, signal.SIGTERM):
        async with sixty_jobs(forked):
            for dead in _stages(forked):
                others = {one.pid for one in _stages(forked)} - {dead.pid}
                dead.send_signal(end)
                await wait_for(lambda: not ready.exists(), what="the ready file to go")
                await wait_for(ready.exists, deadline_s=_START_S, what="all stages to consume")
                now = {one.pid for one in _stages(forked)}
                assert len(now) == len(WORKERS)
                assert others < now
                assert dead.pid not in now


async def test_the_stages_end_when_their_parent_is_killed(forked: Stack) -> None:
    """By themselves and in good order. A parent that is started then finishes what was begun."""
    async with sixty_jobs(forked):
        stages = _stages(forked)
        forked.kill(PROCESSES)
        await wait_for(lambda: not any(one.is_running() for one in stages), deadline_s=30, what="the stages to end")
        assert forked.log_of(PROCESSES).read_text().count("worker.orphaned") == len(WORKERS)
        await asyncio.to_thread(forked.start, PROCESSES)


@pytest.mark.parametrize("how", ["SIGTERM to the parent", "Ctrl-C in a terminal"])
async def test_a_stop_ends_all_in_good_order(forked: Stack, tmp_path: Path, how: str) -> None:
    """A second parent, of two stages, joins the first and leaves: with code 0, no child and no ready file."""
    ready = tmp_path / "ready"
    command = [sys.executable, "-m", "infra.cli", "worker", "generation", "quota", "--processes"]
    with (tmp_path / "output").open("wb") as sink:
        parent = subprocess.Popen(
            [*command, "--ready-file", str(ready)],
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            env=environment(forked.settings),
            start_new_session=True,
        )
    try:
        await wait_for(ready.exists, deadline_s=_START_S, what="the ready file")
        stages = psutil.Process(parent.pid).children()
        assert len(stages) == 2
        async with sixty_jobs(forked):
            if how == "SIGTERM to the parent":
                parent.send_signal(signal.SIGTERM)
            else:
                os.killpg(parent.pid, signal.SIGINT)
            assert await asyncio.to_thread(parent.wait, 30) == 0, (tmp_path / "output").read_text()
        assert not any(one.is_running() for one in stages)
        assert not ready.exists()
        assert "worker.ended" not in (tmp_path / "output").read_text()
    finally:
        parent.kill()
        parent.wait()


@pytest.mark.parametrize(
    ("variables", "code", "said"),
    [
        ({"TEAMFIT_WEBHOOK_CONCURRENCY": "many"}, 2, "TEAMFIT_WEBHOOK_CONCURRENCY"),
        ({"TEAMFIT_WORKER_PORT": "high"}, 2, "TEAMFIT_WORKER_PORT"),
        ({"BROKER_URL": "redis://127.0.0.1:1/0?lease=never"}, 2, "BROKER_URL"),
        ({"DATABASE_URL": "postgresql://127.0.0.1:1/none?sslmod=require"}, 2, "DATABASE_URL"),
    ],
)
def test_what_no_start_can_mend_ends_all(
    forked: Stack, tmp_path: Path, variables: dict[str, str], code: int, said: str
) -> None:
    """A stage that cannot begin is not begun again and again: the parent ends with its code, and it is said once."""
    ended = subprocess.run(
        [sys.executable, "-m", "infra.cli", "worker", "all", "--processes"],
        env=environment(forked.settings) | variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=2 * _START_S,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.count(f"teamfit: {said}") == 1, ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_taken_port_ends_all(forked: Stack, ports: Sequence[int], tmp_path: Path) -> None:
    """The third stage's port is another program's: the sentence names it, and what had begun ends."""
    command = [sys.executable, "-m", "infra.cli", "worker", "all", "--processes"]
    taken = {"TEAMFIT_WORKER_PORT": str(ports[-1] - 2)}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment(forked.settings) | taken, cwd=tmp_path, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), _START_S)
    assert process.returncode == 1
    assert f"port {ports[-1]} on {HOST} is taken" in errors.decode()
