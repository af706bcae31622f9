"""This measures the Celery design that the pipeline replaces, on the same servers.

One worker with a number of processes, each of which handles one job at a time (see `infra.bench.celery_baseline`).
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

import aiosql
import asyncpg

from infra.bench.footprint import Usage
from infra.bench.peers.contenders import DEFAULT, environment
from infra.local.processes import GuardedProcess
from infra.local.stack import Stack

_queries = aiosql.from_path(Path(__file__).with_name("celery_design.sql"), "asyncpg")

_BASELINE: Final = Path(__file__).with_name("celery_baseline")
_ROOT: Final = Path(__file__).parents[2]
_DATABASE: Final = "celery_design"
_ORGANIZATION: Final = "birch"
_READY_S: Final = 60.0
_POLL_S: Final = 0.1
_DEADLINE_S: Final = 300.0


async def measure(stack: Stack, *, jobs: int, processes: int) -> tuple[float, float, float]:
    """Return the jobs a second, the CPU milliseconds a job, and the peak megabytes."""
    python = environment("celery-design", _BASELINE / "requirements.txt", DEFAULT)
    address = await _database(stack.settings.database_url)
    variables = _variables(stack, address)
    log, wishes = stack.folder / "celery.log", stack.folder / "wishes.jsonl"
    command = [str(python.with_name("celery")), "-A", "infra.bench.celery_baseline.tasks", "worker"]
    command += ["--concurrency", str(processes), "--loglevel", "info"]
    worker = GuardedProcess(command, name="celery", log=log, stop_signal=signal.SIGTERM, env=variables)
    try:
        worker.wait_ready(lambda: b" ready." in log.read_bytes(), timeout_s=_READY_S)
        # A task for each process, which imports and connects.
        submitter = _submit(python, variables, wishes, processes)
        await _until_completed(address, processes)
        submitter.wait()
        usage = Usage({"celery": worker.pid})
        began = time.monotonic()
        submitter = _submit(python, variables, wishes, jobs)
        await _until_completed(address, processes + jobs, usage)
        seconds = time.monotonic() - began
        submitter.wait()
        return jobs / seconds, usage.cpu_s()["celery"] / jobs * 1000, usage.peak_mb()["celery"]
    finally:
        worker.stop()


def _submit(python: Path, variables: Mapping[str, str], wishes: Path, jobs: int) -> "subprocess.Popen[bytes]":
    with wishes.open("w") as lines:
        for number in range(jobs):
            wish = {"job_id": str(uuid4()), "organization_id": _ORGANIZATION, "requirements": f"Outdoors {number}"}
            lines.write(json.dumps(wish) + "\n")
    with wishes.open("rb") as lines_in:
        return subprocess.Popen(  # noqa: S603 - a program of ours
            [str(python), "-m", "infra.bench.celery_baseline.submit"],
            stdin=lines_in,
            stdout=subprocess.DEVNULL,
            env=dict(variables),
            cwd=_ROOT,
        )


async def _database(url: str) -> str:
    """Make the design's database beside the pipeline's; return its address."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"CREATE DATABASE {_DATABASE}")
    finally:
        await connection.close()
    address = urlsplit(url)._replace(path=f"/{_DATABASE}").geturl()
    connection = await asyncpg.connect(address)
    try:
        await connection.execute((_BASELINE / "schema.sql").read_text())
        await _queries.open_account(connection, organization_id=_ORGANIZATION)
    finally:
        await connection.close()
    return address


async def _until_completed(address: str, jobs: int, usage: Usage | None = None) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    connection = await asyncpg.connect(address)
    try:
        while await _queries.completed(connection) < jobs:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the Celery design has not completed {jobs} jobs in {_DEADLINE_S:.0f} s")
            if usage is not None:
                usage.sample()
            time.sleep(_POLL_S)  # noqa: ASYNC251 - nothing else runs in this loop
    finally:
        await connection.close()


def _variables(stack: Stack, address: str) -> Mapping[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(_ROOT),
        "BROKER_URL": stack.broker_address,
        "DATABASE_URL": address,
        "OPENAI_BASE_URL": str(stack.settings.openai_base_url),
        "OPENAI_API_KEY": "offline",
        "C_FORCE_ROOT": "1",
    }
