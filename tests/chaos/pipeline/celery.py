"""The Celery design as a system under test: two workers, and a process that submits jobs as the backend did."""

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import aiosql

from infra.local.processes import GuardedProcess, ServerFailed, free_port
from infra.postgres import Database
from tests.chaos.pipeline.grounds import LLM_LATENCY_S, Grounds
from tests.chaos.pipeline.system import Books, Load
from tests.waiting import wait_for

_queries: Any = aiosql.from_path(Path(__file__).with_name("celery.sql"), "asyncpg")
_ROOT = Path(__file__).parents[3]
_BASELINE = _ROOT / "infra" / "bench" / "celery_baseline"
_WORKERS = ("worker", "worker-2")
_AT_ONCE = 8  # tasks of a worker at a time
_READY_S = 60.0
_SUBMIT_S = 20.0

# Fleets that start together share one virtual environment.
_building = asyncio.Lock()


class Celery:
    """The baseline; made by `running`."""

    name = "celery"

    _submitter: asyncio.subprocess.Process

    def __init__(self, grounds: Grounds, folder: Path, programs: Path, llm_port: int, books: Database) -> None:
        self.grounds = grounds
        self._books = books
        self._folder = folder
        self._programs = programs
        self._llm_port = llm_port
        self._children: dict[str, GuardedProcess] = {}
        self._answers: dict[UUID, asyncio.Future[bool]] = {}

    @classmethod
    @asynccontextmanager
    async def running(cls, grounds: Grounds) -> "AsyncIterator[Celery]":
        """Make the virtual environment if there is none, start everything, and stop it in the end."""
        async with _building:
            programs = await asyncio.to_thread(_environment)
        folder = grounds.valkey.data_dir / "celery"
        folder.mkdir()
        books = Database(grounds.postgres.url, size=4)  # past the proxy, which may be part of a fault
        self = cls(grounds, folder, programs, free_port(), books)
        submitter: asyncio.subprocess.Process | None = None
        try:
            await self._start_llm()
            async with books.connection() as connection:
                await connection.execute((_BASELINE / "schema.sql").read_text())
            for worker in _WORKERS:
                await asyncio.to_thread(self.start, worker)
            submitter = await asyncio.create_subprocess_exec(
                *(str(programs / "python"), "-m", "infra.bench.celery_baseline.submit"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=(folder / "submit.log").open("wb"),
                env=self._env,
            )
            self._submitter = submitter
            assert submitter.stdout is not None
            await asyncio.wait_for(submitter.stdout.readline(), _READY_S)  # "ready"
            tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._supervise())]
            yield self
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        finally:
            if submitter is not None:
                with suppress(ProcessLookupError):
                    submitter.kill()
                await submitter.wait()
            await books.close()
            for name in [*self._children]:
                await asyncio.to_thread(self.kill, name)

    async def open_account(self, organization_id: str) -> None:
        """Add an organization with quota enough."""
        async with self._books.connection() as connection:
            await _queries.open_account(connection, organization_id=organization_id)

    async def submit(self, load: Load, number: int, *, durable_only: bool = False) -> None:
        """Submit jobs by the only way in that there is."""
        stdin = self._submitter.stdin
        assert stdin is not None
        job_ids = [uuid4() for _ in range(number)]
        for job_id in job_ids:
            self._answers[job_id] = asyncio.get_running_loop().create_future()
            request = {"job_id": str(job_id), "organization_id": load.organization_id, "requirements": "Outdoors"}
            stdin.write(json.dumps(request).encode() + b"\n")
        await stdin.drain()
        await asyncio.gather(*(self._answered(load, job_id) for job_id in job_ids))

    async def anchored(self, load: Load) -> bool:
        """Every job has a row before its task is sent."""
        return True

    async def statuses(self, load: Load) -> Mapping[UUID, str]:
        """Return the statuses of the row's jobs."""
        async with self._books.connection() as connection:
            rows = _queries.statuses(connection, organization_id=load.organization_id)
            return {row["job_id"]: row["status"] async for row in rows}

    async def books(self, load: Load) -> Books:
        """Read activities and usage."""
        async with self._books.connection() as connection:
            row = await _queries.books(connection, organization_id=load.organization_id)
        return Books(
            duplicate_effects=row["duplicate_effects"],
            double_charges=max(0, row["charged"] - row["completed"]),
            completed=row["completed"],
            known=row["known"],
        )

    async def llm(self, **order: object) -> None:
        """Tell the LLM how to behave."""
        await self.grounds.order_llm(f"http://127.0.0.1:{self._llm_port}/control", **order)

    async def llm_calls(self) -> int:
        """Return how many calls the LLM has received."""
        return await self.grounds.llm_calls(f"http://127.0.0.1:{self._llm_port}/control")

    def parts(self, kind: str) -> Sequence[str]:
        """Return the workers: there is no other kind."""
        assert kind == _WORKERS[0]
        return _WORKERS

    def pid(self, part: str) -> int:
        """Return a worker's process ID."""
        return self._children[part].pid

    def kill(self, part: str) -> None:
        """`kill -9` a worker and the processes of its pool, as the loss of their machine would."""
        child = self._children.pop(part)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.kill()

    def start(self, part: str) -> None:
        """Start a worker and wait until it says that it is ready."""
        log = self._folder / f"{part}.log"
        log.unlink(missing_ok=True)
        command = [str(self._programs / "celery"), "-A", "infra.bench.celery_baseline.tasks", "worker"]
        command += ["--hostname", f"{part}@baseline", "--concurrency", str(_AT_ONCE), "--loglevel", "info"]
        child = GuardedProcess(command, name=part, log=log, stop_signal=signal.SIGTERM, env=self._env)
        self._children[part] = child
        child.wait_ready(lambda: b" ready." in log.read_bytes(), timeout_s=_READY_S)

    async def inconsistencies(self, *, deadline_s: float) -> Sequence[str]:
        """Nothing beyond the counts: the design keeps no books that could be checked against each other."""
        return []

    async def _supervise(self) -> None:
        """Start workers again that ended by themselves, as any supervisor would."""
        while True:
            await asyncio.sleep(1)
            for worker in _WORKERS:
                child = self._children.get(worker)
                if child is not None and not child.running:
                    with suppress(ServerFailed):
                        await asyncio.to_thread(self.start, worker)

    async def _start_llm(self) -> None:
        command = [sys.executable, "-m", "infra.local.llm", "--port", str(self._llm_port)]
        command += ["--latency", str(LLM_LATENCY_S)]
        log = self._folder / "llm.log"
        self._children["llm"] = GuardedProcess(command, name="llm", log=log, stop_signal=signal.SIGTERM)

        async def answers() -> bool:
            with suppress(aiohttp.ClientError):
                return await self.llm_calls() == 0
            return False

        await wait_for(answers, deadline_s=_READY_S, what="the offline LLM to answer")

    async def _answered(self, load: Load, job_id: UUID) -> None:
        try:
            accepted = await asyncio.wait_for(self._answers[job_id], _SUBMIT_S)
        except TimeoutError:
            accepted = False
        if accepted:
            load.accepted[job_id] = datetime.now(UTC)
        else:
            load.refused += 1

    async def _listen(self) -> None:
        assert self._submitter.stdout is not None
        async for line in self._submitter.stdout:
            answer = json.loads(line)
            future = self._answers.pop(UUID(answer["job_id"]))
            if not future.done():
                future.set_result(answer["accepted"])

    @property
    def _env(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            "BROKER_URL": self.grounds.broker_url(),
            "DATABASE_URL": self.grounds.database_url,
            "OPENAI_BASE_URL": f"http://127.0.0.1:{self._llm_port}/v1",
            "OPENAI_API_KEY": "offline",
            "C_FORCE_ROOT": "1",
        }


def _environment() -> Path:
    """Return the programs of a virtual environment with the baseline's requirements, made at the first need."""
    requirements = _BASELINE / "requirements.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    folder = Path(sys.prefix) / f"celery-baseline-{digest}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(requirements)], check=True)
        (folder / "complete").touch()
    return folder / "bin"
