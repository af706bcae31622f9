"""The one clock of all contenders. It needs the standard library alone, because it runs in every peer's environment.

The worker calls `tick` for every job (`tick_all` for a batch): a local counter, whose first job leaves the file `began`
and whose last one the report. A job's argument is a string that either fills the job or is the time of its sending.
"""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import count
from pathlib import Path

URL = os.environ["BENCH_URL"]
VARIANT = os.environ.get("BENCH_VARIANT", "")
_ROLE = os.environ["BENCH_ROLE"]
_JOBS = int(os.environ["BENCH_JOBS"])
_TIMED = bool(os.environ.get("BENCH_TIMED"))
_FOLDER = Path(os.environ["BENCH_FOLDER"])

_PER_S = 100
_START_S = 30.0
_UNTIMED = 10  # a connection's first jobs open pools and load scripts


class _Run:
    """How far this worker has come. `next` of a counter is atomic, so that workers with threads need no lock."""

    numbers = count(1)
    done = 0
    began = 0.0
    first = 1
    latencies: list[float] = []  # noqa: RUF012 - one process, one run


def tick(argument: str) -> None:
    """Count a job."""
    number = next(_Run.numbers)
    if _TIMED:
        _Run.latencies.append(time.time() - float(argument))
    if number == 1:
        _begin(1)
    if number == _JOBS:
        _end()


def tick_all(jobs: int) -> None:
    """Count a batch of jobs; from one task only."""
    first = not _Run.done
    _Run.done += jobs
    if first:
        _begin(jobs)
    if _Run.done >= _JOBS:
        _end()


def main(*, work: Callable[[], object], produce: Callable[[], Coroutine[object, object, None]]) -> None:
    """Play the role that the environment asks for."""
    if _ROLE == "work":
        work()
    else:
        asyncio.run(produce())


async def send_jobs(
    send: Callable[[str], Awaitable[object]],
    send_all: Callable[[Sequence[str]], Awaitable[object]] | None = None,
    *,
    at_once: int = 100,
) -> None:
    """Send the jobs of a role: all of them, or paced. `send_all` sends all; by default `at_once` sends together."""
    if _ROLE == "pace":
        await _pace(send)
        return
    jobs = [f"{number:032d}{'x' * 200}" for number in range(_JOBS)]
    began = time.perf_counter()
    if send_all is not None:
        await send_all(jobs)
    else:
        for start in range(0, _JOBS, at_once):
            await asyncio.gather(*(send(job) for job in jobs[start : start + at_once]))
    _report(seconds=time.perf_counter() - began)


async def _pace(send: Callable[[str], Awaitable[object]]) -> None:
    await send(repr(time.time()))
    deadline = time.monotonic() + _START_S
    while not (_FOLDER / "began").exists() and time.monotonic() < deadline:  # noqa: ASYNC110 - other process
        await asyncio.sleep(0.02)
    due = time.monotonic()
    for _ in range(_JOBS - 1):
        # A send that was late is not made up for by two at once.
        due = max(due + 1 / _PER_S, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
        await send(repr(time.time()))
    _report()


def _begin(jobs: int) -> None:
    _Run.first = jobs
    _Run.began = time.perf_counter()
    (_FOLDER / "began").touch()


def _end() -> None:
    seconds = time.perf_counter() - _Run.began
    _report(seconds=seconds, jobs=_JOBS - _Run.first, latencies=_Run.latencies[_UNTIMED:])


def _report(**fields: object) -> None:
    # Renamed when complete, so that no reader sees half of it.
    draft = _FOLDER / f"{_ROLE}.draft"
    draft.write_text(json.dumps(fields))
    draft.rename(_FOLDER / f"{_ROLE}.json")
