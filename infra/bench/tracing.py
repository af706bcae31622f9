"""`python -m infra.bench.tracing` measures what traces cost the pipeline.

Fleets that differ in nothing else stand side by side, each with servers of its own: without traces, with a collector
that is away, with a share of the jobs traced, with all, with each of their statements too. Each is every stage in one
process, so all that tracing costs falls on the process that bounds the throughput. They take turns, many short ones in
changing order, so that whatever else the machine does meets all of them; each turn is compared with the one without
traces of the same round.
"""

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiosql
import psutil
from pydantic import BaseModel
from rich.console import Console
from rich.progress import track
from rich.table import Table

from infra.bench.span_sink import SINK_READY
from infra.local.organizations import ACME
from infra.local.processes import HOST, GuardedProcess, free_port
from infra.local.stack import ALL, Stack
from infra.postgres import Database
from infra.settings import Settings
from producers.client import JobRequests, Request

_queries = aiosql.from_path(Path(__file__).with_name("tracing.sql"), "asyncpg")

_BASE: Final = "no traces"
_LLM_S: Final = 0.05
_AT_ONCE: Final = 100
_POLL_S: Final = 0.05
_DEADLINE_S: Final = 120.0
_WARM_UPS: Final = 2  # rounds that open connections, fill caches and are not counted


@dataclass
class Fleet:
    """One way to trace, and what its turns took.

    Attributes:
        seconds: from the first request to the last completed job, turn by turn.
        cpu_ms: what the worker used for each job.
    """

    name: str
    stack: Stack
    seconds: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)


class FleetReport(BaseModel):
    """One way to trace compares so with none.

    Costs are those of the middle turn; quartiles those of the turns a quarter from each end.

    Attributes:
        throughput_cost: by how much fewer jobs a second are done, in percent.
    """

    name: str
    jobs_per_s: float
    cpu_ms_per_job: float
    throughput_cost: float
    throughput_quartiles: tuple[float, float]
    cpu_cost: float


def main() -> int:
    """Run the benchmark with the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.tracing", description=__doc__)
    parser.add_argument("--jobs", type=int, default=400, help="jobs of a turn (default 400)")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each fleet (default 15)")
    parser.add_argument("--only", action="append", metavar="NAME", help="a fleet besides the one without traces")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    options = parser.parse_args()
    for name in {"DATABASE_URL", "BROKER_URL"} & os.environ.keys():
        sys.exit(f"{name} is set, and each fleet needs servers of its own; unset it")
    progress = Console(stderr=True)
    with _fleets(progress, only=options.only or ()) as fleets:
        asyncio.run(_measure(fleets, jobs=options.jobs, rounds=options.rounds, progress=progress))
    reports = [_report(fleet, fleets[0], options.jobs) for fleet in fleets]
    if options.json:
        print("[" + ",\n".join(one.model_dump_json(indent=2) for one in reports) + "]")
    else:
        _show(reports)
    return 0


@contextmanager
def _fleets(progress: Console, *, only: Sequence[str]) -> Iterator[Sequence[Fleet]]:
    """Start all fleets, the one without traces first, and a collector that keeps nothing."""
    with ExitStack() as stack:
        port = free_port()
        log = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "collector.log"
        sink = GuardedProcess(
            [sys.executable, "-m", "infra.bench.span_sink", "--port", str(port)],
            name="collector",
            log=log,
            stop_signal=signal.SIGTERM,
        )
        stack.callback(sink.stop)
        sink.wait_ready(lambda: SINK_READY in log.read_text(), timeout_s=30)
        here, away = f"http://{HOST}:{port}", f"http://{HOST}:{free_port()}"
        fleets = []
        for name, endpoint, share, statements in (
            (_BASE, None, 0.0, 0.0),
            ("collector away, a twentieth", away, 0.05, 0.05),
            ("a twentieth of the jobs", here, 0.05, 0.05),
            ("all jobs", here, 1.0, 0.05),
            ("all jobs, each statement", here, 1.0, 1.0),
        ):
            if only and name not in {_BASE, *only}:
                continue
            progress.print(f"starting a fleet: {name} …")
            settings = Settings(
                _env_file=None,
                otlp_endpoint=endpoint,
                trace_share=share,
                trace_statements=statements,
                generation_concurrency=_AT_ONCE,
            )
            fleets.append(Fleet(name, stack.enter_context(Stack(settings, llm_latency_s=_LLM_S, parts=(ALL,)))))
        yield fleets


async def _measure(fleets: Sequence[Fleet], *, jobs: int, rounds: int, progress: Console) -> None:
    turns = range(rounds + _WARM_UPS)
    for turn in track(turns, description="measuring", console=progress):
        first = turn % len(fleets)
        for fleet in (*fleets[first:], *fleets[:first]):
            seconds, cpu_s = await _turn(fleet.stack, jobs)
            if turn >= _WARM_UPS:
                fleet.seconds.append(seconds)
                fleet.cpu_ms.append(cpu_s * 1000 / jobs)


async def _turn(stack: Stack, jobs: int) -> tuple[float, float]:
    """Send jobs, and return the seconds until the last was completed, and those of CPU that the worker used."""
    worker = psutil.Process(stack.pids()[ALL])
    database = Database(stack.settings.database_url, size=1)
    try:
        async with database.connection() as connection:
            before, start = await _queries.completed(connection), await _queries.now(connection)
            cpu_before = _cpu_s(worker)
            async with JobRequests.connect(stack.settings.broker_url, source="bench") as requests:
                await requests.submit_many(_requests(jobs))
            deadline = time.monotonic() + _DEADLINE_S
            while await _queries.completed(connection) < before + jobs:
                await asyncio.sleep(_POLL_S)
                stack.check()
                if time.monotonic() > deadline:
                    sys.exit(f"a turn of {jobs} jobs took longer than {_DEADLINE_S:g} s")
            return float(await _queries.seconds_until_the_last(connection, start=start)), _cpu_s(worker) - cpu_before
    finally:
        await database.close()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _requests(number: int) -> list[Request]:
    wishes = "A session outdoors for 6 people, about 45 minutes, variant {}"
    return [
        Request(organization_id=ACME.id, team_id=ACME.team.id, requirements=wishes.format(index))
        for index in range(number)
    ]


def _report(fleet: Fleet, base: Fleet, jobs: int) -> FleetReport:
    """Compare each turn with that of the same round."""
    throughput = [100 * (1 - without / took) for without, took in zip(base.seconds, fleet.seconds, strict=True)]
    cpu = [100 * (took / without - 1) for without, took in zip(base.cpu_ms, fleet.cpu_ms, strict=True)]
    low, _, high = statistics.quantiles(throughput, n=4, method="inclusive")
    return FleetReport(
        name=fleet.name,
        jobs_per_s=round(jobs / statistics.median(fleet.seconds), 1),
        cpu_ms_per_job=round(statistics.median(fleet.cpu_ms), 2),
        throughput_cost=round(statistics.median(throughput), 1),
        throughput_quartiles=(round(low, 1), round(high, 1)),
        cpu_cost=round(statistics.median(cpu), 1),
    )


def _show(reports: Sequence[FleetReport]) -> None:
    table = Table("traces", "jobs a second", "fewer, %", "quartiles", "CPU ms a job", "more, %")
    for one in reports:
        low, high = one.throughput_quartiles
        table.add_row(
            one.name,
            f"{one.jobs_per_s:g}",
            f"{one.throughput_cost:+.1f}",
            f"{low:+.1f} to {high:+.1f}",
            f"{one.cpu_ms_per_job:.2f}",
            f"{one.cpu_cost:+.1f}",
        )
    Console(highlight=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
