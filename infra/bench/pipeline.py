"""`python -m infra.bench.pipeline`: jobs through the whole pipeline, on embedded servers, one worker a stage.

The clock runs from the first request to the last completed row in the read model. The offline LLM answers after a fixed
time, so what a job takes beyond that is the pipeline's own. A broker that `BROKER_URL` names is used instead of the
embedded one. With `--rate` the jobs come one by one, evenly, and the CPU is what they cost so, with what the processes
take while they wait. Beside the pipeline, in the same run: a bare loop of the `openai` client, and the Celery design
that the pipeline replaces (`--peer celery`).
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import aiosql
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from infra.bench import celery_design
from infra.bench.footprint import Stored, Usage, connections
from infra.bench.peers.plot import Bar, draw
from infra.local.organizations import BIRCH
from infra.local.stack import WORKERS, Stack
from infra.postgres import Database
from infra.settings import Settings
from producers.client import JobRequests, Request
from streams.jobs.stages import GENERATION

_queries = aiosql.from_path(Path(__file__).with_name("pipeline.sql"), "asyncpg")

_POLL_S = 0.1
_DEADLINE_S = 300.0
_PEER_S = 30.0
_PEER_JOB_S = 0.1  # what a job takes the peer beside the LLM's time, at most
_WARM_UP_JOBS = 20  # opens the pools and connections that a running worker has long had


class ProcessReport(BaseModel):
    """The CPU time and memory that one process used."""

    name: str
    cpu_ms_per_job: float
    peak_memory_mb: float


class PeerReport(BaseModel):
    """The Celery design's result, on the same servers."""

    processes: int
    jobs: int
    jobs_per_s: float
    cpu_ms_per_job: float
    peak_memory_mb: float


class PipelineReport(BaseModel):
    """The result of a run.

    Attributes:
        workers: how many generation workers there were.
        overhead_p50_s: from request to completion, less the LLM's latency.
        bare_call_ms: the CPU that a call of the `openai` client takes in a bare loop.
        celery: the peer's result, if it was asked for.
        bytes_per_job: what a job has left in each table, and in an embedded broker.
        connections: those that each process holds in the end.
    """

    jobs: int
    llm_latency_s: float
    workers: int
    seconds: float
    jobs_per_s: float
    overhead_p50_s: float
    overhead_p99_s: float
    processes: list[ProcessReport]
    bytes_per_job: dict[str, int]
    connections: dict[str, dict[str, int]]
    bare_call_ms: float | None = None
    celery: PeerReport | None = None


def main() -> int:
    """Run the benchmark with the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.pipeline", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000, help="jobs to send (default 2000)")
    parser.add_argument("--llm-latency", type=float, default=1.0, help="seconds that the LLM takes (default 1)")
    parser.add_argument("--rate", type=float, help="jobs to send a second (default: all at once)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1], help="generation workers; a run each (default 1)"
    )
    parser.add_argument("--peer", choices=["celery"], help="also measure this design, beside the first run")
    parser.add_argument("--peer-processes", type=int, default=4, help="processes of its worker (default 4)")
    parser.add_argument("--plot", type=Path, help="draw the jobs a second over the workers into this SVG file")
    parser.add_argument("--json", action="store_true", help="print one JSON document, of several runs a list")
    options = parser.parse_args()
    reports = [_run(options, workers, is_first=not number) for number, workers in enumerate(options.workers)]
    if options.plot:
        options.plot.write_text(_plot(reports))
    if options.json:
        documents = [report.model_dump(mode="json") for report in reports]
        print(json.dumps(documents if len(documents) > 1 else documents[0], indent=2))
    else:
        for report in reports:
            _show(report)
    return 0


def _run(options: argparse.Namespace, workers: int, *, is_first: bool) -> PipelineReport:
    progress = Console(stderr=True)
    more = [f"{GENERATION}-{number}" for number in range(2, workers + 1)]
    stack = Stack(
        Settings(),
        llm_latency_s=options.llm_latency,
        parts=(*WORKERS, *more),
        report=lambda step: progress.print(f"{step} …"),
    )
    with stack:
        report = asyncio.run(_measure(stack, options, workers=workers))
        if stack.offline:
            progress.print("a bare loop of the openai client …")
            report.bare_call_ms = _bare_call_ms(stack, options.jobs)
        if options.peer and is_first:
            progress.print("the Celery design …")
            report.celery = asyncio.run(_celery(stack, options))
    return report


def _plot(reports: Sequence[PipelineReport]) -> str:
    bars = [
        Bar(f"{one.workers} generation worker{'s' if one.workers > 1 else ''}", one.jobs_per_s, "ours")
        for one in reports
    ]
    if (peer := reports[0].celery) is not None:
        bars.append(Bar(f"the Celery design, {peer.processes} processes", peer.jobs_per_s, "peer"))
    first = reports[0]
    note = f"{first.jobs:,} jobs, an LLM of {first.llm_latency_s:g} s; {os.cpu_count()} cores for everything"
    return draw("Jobs a second", note, bars, is_ordered=False)


def _bare_call_ms(stack: Stack, calls: int) -> float:
    at_once = stack.settings.generation_concurrency
    command = [sys.executable, "-m", "infra.bench.bare_client", str(stack.settings.openai_base_url)]
    command += ["--calls", str(calls), "--at-once", str(at_once)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - a program of ours
    return float(json.loads(done.stdout)["cpu_ms_per_call"])


async def _celery(stack: Stack, options: argparse.Namespace) -> PeerReport:
    # As many as it does in about half a minute.
    jobs = min(options.jobs, options.peer_processes * max(1, round(_PEER_S / max(options.llm_latency, _PEER_JOB_S))))
    rate, cpu_ms, memory_mb = await celery_design.measure(stack, jobs=jobs, processes=options.peer_processes)
    return PeerReport(
        processes=options.peer_processes,
        jobs=jobs,
        jobs_per_s=round(rate, 1),
        cpu_ms_per_job=round(cpu_ms, 2),
        peak_memory_mb=round(memory_mb, 1),
    )


async def _measure(stack: Stack, options: argparse.Namespace, *, workers: int) -> PipelineReport:
    jobs, llm_latency_s = options.jobs, options.llm_latency
    database = Database(stack.settings.database_url, size=1)
    try:
        async with JobRequests.connect(stack.settings.broker_url, source="bench") as requests:
            await requests.submit_many(_requests(_WARM_UP_JOBS))
            await _until_completed(stack, database, _WARM_UP_JOBS)
            async with database.connection() as connection:
                before = await Stored.now(stack, connection)
            usage = Usage(stack.pids())
            start = time.monotonic()
            await _send(requests, jobs, options.rate)
            await _until_completed(stack, database, _WARM_UP_JOBS + jobs, usage)
            seconds = time.monotonic() - start
        async with database.transaction() as connection:
            # Those of the warm-up came first.
            stored = await Stored.now(stack, connection)
            rows = [row["seconds"] async for row in _queries.seconds_to_completion(connection)][_WARM_UP_JOBS:]
    finally:
        await database.close()
    overhead = statistics.quantiles([row - llm_latency_s for row in rows], n=100, method="inclusive")
    cpu, memory = usage.cpu_s(), usage.peak_mb()
    return PipelineReport(
        jobs=jobs,
        llm_latency_s=llm_latency_s,
        workers=workers,
        seconds=round(seconds, 2),
        jobs_per_s=round(jobs / seconds, 1),
        overhead_p50_s=round(overhead[49], 3),
        overhead_p99_s=round(overhead[98], 3),
        processes=[
            ProcessReport(
                name=name, cpu_ms_per_job=round(cpu[name] / jobs * 1000, 2), peak_memory_mb=round(memory[name], 1)
            )
            for name in sorted(cpu, key=lambda name: -cpu[name])
        ],
        bytes_per_job=stored.less(before, jobs),
        connections=connections(stack),
    )


async def _send(requests: JobRequests, jobs: int, rate: float | None) -> None:
    if rate is None:
        await requests.submit_many(_requests(jobs))
        return
    start = time.monotonic()
    for number, request in enumerate(_requests(jobs)):
        await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
        await requests.submit_many([request])


def _requests(number: int) -> list[Request]:
    wishes = "A session outdoors for 6 people, about 45 minutes, variant {}"
    return [
        Request(organization_id=BIRCH.id, team_id=BIRCH.team.id, requirements=wishes.format(index))
        for index in range(number)
    ]


async def _until_completed(stack: Stack, database: Database, jobs: int, usage: Usage | None = None) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    completed = -1
    while completed < jobs:
        await asyncio.sleep(_POLL_S)
        stack.check()
        if usage is not None:
            usage.sample()
        async with database.transaction() as connection:
            completed = await _queries.completed(connection)
        if time.monotonic() > deadline:
            sys.exit(f"only {completed} of {jobs} jobs were completed after {_DEADLINE_S:.0f} s")


def _show(report: PipelineReport) -> None:
    console = Console(highlight=False)
    console.print(
        f"{report.jobs} jobs with an LLM latency of {report.llm_latency_s:g} s: {report.seconds:g} s, "
        f"{report.jobs_per_s:g} jobs/s"
    )
    console.print(
        f"From request to completion, less the LLM's latency: p50 {report.overhead_p50_s:g} s, "
        f"p99 {report.overhead_p99_s:g} s"
    )
    table = Table("process", "CPU ms per job", "peak memory, MB")
    for process in report.processes:
        table.add_row(process.name, f"{process.cpu_ms_per_job:.2f}", f"{process.peak_memory_mb:.0f}")
    console.print(table)
    sizes = ", ".join(f"{name} {size:,}" for name, size in report.bytes_per_job.items())
    console.print(f"Bytes that a job has left: {sizes}")
    held = "; ".join(
        f"{name}: {', '.join(f'{count} to {whom}' for whom, count in to.items())}"
        for name, to in report.connections.items()
    )
    console.print(f"Connections: {held}")
    if report.bare_call_ms is not None:
        own = sum(one.cpu_ms_per_job for one in report.processes if one.name.startswith(GENERATION))
        console.print(
            f"A bare loop of the openai client: {report.bare_call_ms:.2f} ms of CPU a call; "
            f"generation: {own / report.bare_call_ms:.2f} times that"
        )
    if report.celery is not None:
        peer = report.celery
        console.print(
            f"The Celery design, {peer.processes} processes, {peer.jobs} jobs: {peer.jobs_per_s:g} jobs/s, "
            f"{peer.cpu_ms_per_job:.1f} ms of CPU a job, {peer.peak_memory_mb:.0f} MB; "
            f"the pipeline: {report.jobs_per_s / peer.jobs_per_s:.1f} times its jobs/s"
        )


if __name__ == "__main__":
    sys.exit(main())
