"""The commands that a newcomer types first."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from infra.local.processes import free_port
from tests.command_processes import CommandProcesses
from tests.waiting import wait_for

_TEAMFIT = [sys.executable, "-m", "infra.cli"]
_START_S = 60.0


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files that everyone may enter: the database runs as another user when we are root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*_TEAMFIT, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_demo_prints_one_json_document() -> None:
    """`teamfit demo --json` prints every job with its way in, its timeline, and its activities or its refusal."""
    result = _run("demo", "--json")
    assert result.returncode == 0, result.stderr
    jobs: list[dict[str, Any]] = json.loads(result.stdout)["jobs"]
    served = [job for job in jobs if job["status"] == "completed"]
    refused = [job for job in jobs if job["refusal_code"]]
    assert {job["way_in"] for job in served} == {"http", "client", "xadd"}
    assert {job["refusal_code"] for job in refused} == {
        "quota_exceeded",
        "subscription_required",
        "trust_too_low",
        "team_not_found",
        "organization_not_found",
    }
    assert len(served) + len(refused) == len(jobs)
    for job in jobs:
        kinds = [moment["type"].split(".")[2] for moment in job["timeline"]]
        assert job["job_id"]
        assert set(kinds) >= ({"requested", "started", "completed"} if job in served else {"requested", "rejected"})
        assert all(moment["time"] for moment in job["timeline"])
        assert len(job["activities"]) == (3 if job in served else 0)


@pytest.mark.parametrize(
    ("number", "after"),
    [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "preparing"), (signal.SIGKILL, "starting the stages")],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_up_leaves_nothing_behind(temporary: Path, number: signal.Signals, after: str) -> None:
    """However and whenever `teamfit up` is ended, its children end and its files are removed; while up, it works."""
    output = temporary / "output"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [*_TEAMFIT, "up", "--port", str(free_port())],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
        )
    try:
        await wait_for(
            lambda: after in output.read_text() or process.poll() is not None,
            deadline_s=_START_S,
            what=f"{after!r} to be printed",
        )
        assert process.poll() is None, output.read_text()
        if number == signal.SIGINT:
            _printed_commands_work(output.read_text())
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(number)
        assert process.wait(timeout=30) == (-number if number == signal.SIGKILL else 0), output.read_text()
    finally:
        process.kill()
        process.wait()
    await wait_for(lambda: not [one for one in children if _lives(one)], what="the children to end")
    await wait_for(lambda: list(temporary.iterdir()) == [output], what="the files to be removed")


def test_a_taken_port_is_a_clear_message() -> None:
    """A port that another program holds is named, with the option that changes it, and nothing is started."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = _run("up", "--port", str(port))
    assert result.returncode == 1
    assert f"port {port}" in result.stderr
    assert "--port" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("command", "environment", "said"),
    [
        (("worker", "quota"), {"TEAMFIT_MAX_ATTEMPTS": "many"}, "TEAMFIT_MAX_ATTEMPTS is 'many'"),
        (("worker", "quota"), {"TEAMFIT_BATCH_SIZE": "1e9"}, "TEAMFIT_BATCH_SIZE"),
        (("worker", "generation"), {"OPENAI_API_KEY": "sk-a sk-b"}, "OPENAI_API_KEY cannot be used"),
        (("worker", "quota"), {"TEAMFIT_LOG_LEVEL": "loud"}, "TEAMFIT_LOG_LEVEL"),
        (("worker", "quota"), {"TEAMFIT_WORKER_PORT": "1", "TEAMFIT_WORKER_HOST": "no such"}, "TEAMFIT_WORKER_PORT"),
        (("worker", "quota", "--ready-file", "/nowhere/ready"), {}, "--ready-file"),
        (("worker", "quota"), {"DATABASE_URL": "postgresql://h/d?sslmod=require"}, "write sslmode"),
        (("api",), {"TEAMFIT_SIGNING_KEY": "k" * 32, "TEAMFIT_TRUST_THRESHOLD": "2"}, "TEAMFIT_TRUST_THRESHOLD"),
        (("migrate",), {"TEAMFIT_MAX_ATTEMPTS": "many", "DATABASE_URL": "postgresql://a@127.0.0.1:1/b"}, "is away"),
        (("migrate",), {"DATABASE_URL": "postgresql://127.0.0.1:1/teamfit"}, "DATABASE_URL"),
        (("migrate",), {"DATABASE_URL": "no address"}, "DATABASE_URL"),
        (("token", "--organization", "acme"), {}, "TEAMFIT_SIGNING_KEY"),
        (("worker", "quota"), {"BROKER_URL": "redis://127.0.0.1:1/0?leese=3s"}, "leese"),
        (("worker", "quota"), {"BROKER_URL": "redis://:6379"}, "teamfit: BROKER_URL cannot be used: it has no host"),
        (("worker", "schedule"), {"BROKER_URL": "REDIS_URL=redis://h:6379"}, "it begins with a variable's name"),
        (("api",), {"BROKER_URL": "redis://${HOST}", "TEAMFIT_SIGNING_KEY": "k" * 32}, "it holds a placeholder"),
        (("up",), {"BROKER_URL": "h:6379"}, "teamfit: BROKER_URL cannot be used: it has no scheme"),
        (("demo",), {"BROKER_URL": "redis:///0"}, "teamfit: BROKER_URL cannot be used: it has no host"),
        (("lag",), {"BROKER_URL": "kafka://"}, "it has no host; write kafka://HOST:9092"),
        (("demo",), {"BROKER_URL": "kafka://127.0.0.1:1"}, "BROKER_URL is kafka://"),
        (("up",), {"BROKER_URL": "kafka://127.0.0.1:1"}, "check BROKER_URL"),
        (("up",), {"BROKER_URL": "redis://127.0.0.1:1"}, "check BROKER_URL"),
    ],
)
def test_a_wrong_setting_is_named_in_a_line(
    command_processes: CommandProcesses,
    tmp_path: Path,
    command: tuple[str, ...],
    environment: dict[str, str],
    said: str,
) -> None:
    """A setting that is wrong or missing is named on standard error, without a traceback."""
    # Somebody may listen on the usual port of this machine.
    port = ("--port", str(free_port())) if command[0] in {"up", "api"} else ()
    result = command_processes.run([*command, *port], folder=tmp_path, environment=environment)
    assert result.code in {1, 2}
    assert said in result.errors
    assert "Traceback" not in result.errors


def _printed_commands_work(output: str) -> None:
    """Run the commands that `up` prints, as pasted; what redis-cli would send is sent from here."""
    post, read = [line for line in output.splitlines() if line.startswith("curl ")]
    if shutil.which("curl"):
        answer = subprocess.run(post, shell=True, capture_output=True, check=True)  # noqa: S602 - as pasted
        assert json.loads(answer.stdout)["success"] is True
    (entry,) = [line for line in output.splitlines() if line.startswith("redis-cli ")]
    words = shlex.split(entry)
    assert words[1::2][:3] == ["-h", "-p", "-n"]
    with redis.Redis(words[2], int(words[4]), db=int(words[6])) as client:
        assert client.execute_command(*words[7:])
    assert words[words.index("key") + 1] in read


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
