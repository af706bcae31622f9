"""A run writes the jobs and lets one worker process drain them. Both are watched from outside."""

import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from redis import Redis

from infra.bench.footprint import Usage
from infra.bench.peers.contenders import Contender
from infra.local.processes import GuardedProcess

_ROOT = Path(__file__).parents[3]
_DEADLINE_S = 40.0
_PACED_JOBS = 300
_LOOK_S = 0.005


class RunFailed(RuntimeError):
    """A process of a contender ended, or was not done in time."""


@dataclass(frozen=True)
class Drained:
    """The measurements of a drain. `sent_per_s` is how fast the jobs were written before."""

    per_s: float
    sent_per_s: float
    cpu_s_per_10k: float
    memory_mb: float


@dataclass(frozen=True)
class Paced:
    """Latencies from sending to the job, at a hundred jobs a second."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Grounds:
    """A server for the runs. Each run empties it."""

    url: str
    folder: Path

    def drain(self, contender: Contender, python: Path) -> Drained:
        """Write the jobs, then start the worker. The clock runs from its first job to its last."""
        with self._run(contender, python, jobs=contender.jobs) as run:
            with run.start("enqueue") as sender:
                sent = run.report("enqueue", sender)
            with run.start("work") as worker:
                run.wait_for("began", worker)
                usage = Usage({"worker": worker.pid})
                while not run.done("work"):
                    usage.sample()
                    run.check(worker)
                report = run.report("work", worker)
                usage.sample()
        return Drained(
            per_s=report.jobs / report.seconds,
            sent_per_s=contender.jobs / sent.seconds,
            cpu_s_per_10k=usage.cpu_s()["worker"] / report.jobs * 10_000,
            memory_mb=usage.peak_mb()["worker"],
        )

    def pace(self, contender: Contender, python: Path) -> Paced:
        """Start the worker, wait for its first job, then send a hundred a second."""
        with (
            self._run(contender, python, jobs=_PACED_JOBS, timed=True) as run,
            run.start("work") as worker,
            run.start("pace") as sender,
        ):
            run.report("pace", sender)
            latencies = [1000 * seconds for seconds in run.report("work", worker).latencies]
        return Paced(p50_ms=statistics.median(latencies), p99_ms=statistics.quantiles(latencies, n=100)[98])

    @contextmanager
    def _run(self, contender: Contender, python: Path, *, jobs: int, timed: bool = False) -> Iterator["_Run"]:
        with Redis.from_url(self.url) as client:
            client.flushall()
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            yield _Run(contender, python, self.url, Path(folder), jobs, timed=timed)


class _Report(BaseModel):
    """What `meter` writes, each field by the roles that know it."""

    seconds: float = 0.0
    jobs: int = 0
    latencies: list[float] = []


class _Run:
    """The processes of a run, and the files that they leave (see `meter`)."""

    def __init__(self, contender: Contender, python: Path, url: str, folder: Path, jobs: int, *, timed: bool) -> None:
        self._name = contender.name
        self._command = [str(python), "-m", f"infra.bench.peers.{contender.module}"]
        self._folder = folder
        self._env = {
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            "BENCH_URL": url,
            "BENCH_JOBS": str(jobs),
            "BENCH_TIMED": "1" if timed else "",
            "BENCH_VARIANT": contender.variant,
            "BENCH_FOLDER": str(folder),
        }

    @contextmanager
    def start(self, role: str) -> Iterator[GuardedProcess]:
        """Start a process; it is killed in the end, for the server is emptied before anything else runs."""
        process = GuardedProcess(
            self._command,
            name=self._name,
            log=self._folder / f"{role}.log",
            stop_signal=signal.SIGTERM,
            env={**self._env, "BENCH_ROLE": role},
        )
        self._deadline = time.monotonic() + _DEADLINE_S
        try:
            yield process
        finally:
            process.kill()

    def done(self, role: str) -> bool:
        """Whether a process has left its report."""
        return (self._folder / f"{role}.json").exists()

    def wait_for(self, file: str, process: GuardedProcess) -> None:
        """Wait for a file of a process."""
        while not (self._folder / file).exists():
            self.check(process)

    def report(self, role: str, process: GuardedProcess) -> _Report:
        """Wait for a process's report and return it."""
        self.wait_for(f"{role}.json", process)
        return _Report.model_validate_json((self._folder / f"{role}.json").read_text())

    def check(self, process: GuardedProcess) -> None:
        """Wait a moment.

        Raises:
            RunFailed: the process ended without a report, or the time is over.
        """
        time.sleep(_LOOK_S)
        if process.running and time.monotonic() < self._deadline:
            return
        if not process.running and any(self._folder.glob("*.json")):
            return
        log = process.log.read_text(errors="replace").strip().splitlines()
        reason = "was not done in time" if process.running else "ended"
        raise RunFailed(f"{self._name} {reason}: {log[-1] if log else 'its log is empty'}")
