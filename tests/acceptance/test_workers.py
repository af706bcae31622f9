"""A stage as a process: how it starts, says that it is ready, and ends."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.environment import environment
from infra.local.processes import free_port
from infra.local.stack import Stack
from tests.acceptance.customer import Customer
from tests.waiting import wait_for

_FAUST = str(Path(sys.executable).with_name("faust"))


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "infra.cli", "worker", "quota"],
        # Its own web server has a fixed port unless told otherwise, and another worker may have taken it.
        [_FAUST, "-A", "consumers.quota", "worker", "-l", "info", "--web-port", str(free_port())],
    ],
    ids=["teamfit worker", "faust worker"],
)
async def test_a_second_worker_joins_and_leaves(
    stack: Stack, customer: Customer, tmp_path: Path, command: list[str]
) -> None:
    """A worker started either way takes part beside the first, and SIGTERM ends it in good order, with code 0."""
    output = tmp_path / "output"
    with output.open("wb") as sink:
        worker = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, cwd=tmp_path, env=environment(stack.settings)
        )
    try:
        await wait_for(lambda: "Worker ready" in output.read_text(), deadline_s=60, what="the worker to be ready")
        await customer.gets_three_activities()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=30) == 0, output.read_text()
    finally:
        worker.kill()
        worker.wait()
    await customer.gets_three_activities()


async def test_the_ready_file_says_whether_a_worker_consumes(stack: Stack, tmp_path: Path) -> None:
    """The file of `--ready-file` is there while the worker consumes, and gone when it has stopped."""
    ready = tmp_path / "ready"
    with (tmp_path / "output").open("wb") as sink:
        worker = subprocess.Popen(
            [sys.executable, "-m", "infra.cli", "worker", "projection", "--ready-file", str(ready)],
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            env=environment(stack.settings),
        )
    try:
        await wait_for(ready.exists, deadline_s=60, what="the ready file")
        worker.send_signal(signal.SIGINT)
        assert worker.wait(timeout=30) == 0
    finally:
        worker.kill()
        worker.wait()
    assert not ready.exists()
