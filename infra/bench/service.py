"""`python -m infra.bench.service` measures callers' waits and the idle fleet's memory.

All servers are embedded. The offline LLM answers after a fixed time, so what a job takes beyond that is the pipeline's
own. Where a job is followed to its end, requests come at a fixed rate (an open loop). Reading is measured beside a
FastAPI route that returns a constant, served in the same way, by the same client. Memory is the proportional set size.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

import aiosql
import psutil
from rich.console import Console
from rich.table import Table

from infra.bench.http_load import Api, Times, at_rate, by_connections
from infra.bench.peers.plot import Bar, draw
from infra.local.organizations import BIRCH
from infra.local.processes import HOST, GuardedProcess, free_port
from infra.local.stack import ALL, API, PROCESSES, WORKERS, Stack
from infra.postgres import Database
from infra.settings import Settings

_queries = aiosql.from_path(Path(__file__).with_name("service.sql"), "asyncpg")

_LLM_S: Final = 1.0
_AT_REST: Final = 20  # jobs, one after the other
_RATES: Final = (50.0,)
_READERS: Final = (1, 32)
_SENDERS: Final = 16
_IDLE_S: Final = 15.0  # what processes do when they start is not idling
_MEGABYTE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of the report; `beside` is the same measure of what stands beside it."""

    name: str
    times: Times
    beside: Times | None = None

    @property
    def of_beside(self) -> float | None:
        """Return how the rate compares."""
        return round(self.times.rate / self.beside.rate, 2) if self.beside else None


@dataclass(frozen=True, slots=True)
class Report:
    """One run has measured this."""

    requests: list[Measured]
    memory_mb: dict[str, dict[str, float]]

    def as_json(self) -> str:
        """Return one JSON document."""
        lines = [asdict(one) | {"of_beside": one.of_beside} for one in self.requests]
        return json.dumps({"requests": lines, "memory_mb": self.memory_mb}, indent=2)


def main() -> int:
    """Run the benchmark with the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.service", description=__doc__)
    parser.add_argument("--stored", type=int, default=1_000_000, help="jobs stored before reading (default 1000000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each measure takes (default 10)")
    parser.add_argument("--rates", type=float, nargs="+", default=_RATES, help="jobs a second to follow (default 50)")
    parser.add_argument("--memory", action="store_true", help="measure the idle fleets' memory alone")
    parser.add_argument("--plot", type=Path, help="draw the overhead over the rates into this SVG file")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    options = parser.parse_args()
    progress = Console(stderr=True)

    def step(name: str) -> None:
        progress.print(f"{name} …")

    with Stack(Settings(), llm_latency_s=_LLM_S, report=step) as stack:
        step("waiting until the fleet is idle")
        memory = {"one process a stage": _idle_memory(stack)}
        requests = [] if options.memory else asyncio.run(_requests(stack, options, step))
    for form, part in (("one process a stage, forked from one", PROCESSES), ("every stage in one process", ALL)):
        with Stack(Settings(), llm_latency_s=_LLM_S, parts=(part, API), report=step) as stack:
            step("waiting until the small fleet is idle")
            memory[form] = _idle_memory(stack)
    report = Report(requests, memory)
    if options.plot and requests:
        options.plot.write_text(_plot(report, options.rates))
    if options.json:
        print(report.as_json())
    else:
        _show(report)
    return 0


async def _requests(stack: Stack, options: argparse.Namespace, step: Callable[[str], None]) -> list[Measured]:
    stored, seconds = options.stored, options.seconds
    api = Api(stack.api_url, stack.token(BIRCH.id), BIRCH.id, BIRCH.team.id)
    measured = []
    async with api.session(connections=1_000) as session:
        complete = partial(api.complete, session)
        await complete()
        step("jobs, one after the other")
        measured.append(Measured("a job at rest, less the LLM's time", await _one_by_one(complete)))
        for rate in options.rates:
            step(f"{rate:g} jobs a second")
            times = _less_llm(await at_rate(complete, per_s=rate, seconds=seconds))
            measured.append(Measured(_followed(rate), times))
        step(f"POST by {_SENDERS} connections")
        submit = partial(api.submit, session)
        measured.append(
            Measured(
                f"POST, {_SENDERS} connections, all stages at work",
                await by_connections(submit, connections=_SENDERS, seconds=seconds),
            )
        )
        step("waiting until all is done")
        await _until_done(stack)
    step(f"storing {stored:,} jobs")
    job_id = await _store(stack, stored)
    with _constant_route(stack) as constant:
        for readers in _READERS:
            step(f"GET by {readers} connections")
            measured.append(
                Measured(
                    f"GET a job, {readers} connections, {stored:,} stored",
                    await _reading(api, job_id, readers, seconds),
                    await _reading(constant, job_id, readers, seconds),
                )
            )
    return measured


def _followed(rate: float) -> str:
    return f"a job at {rate:g}/s, less the LLM's time"


async def _one_by_one(complete: Callable[[], Awaitable[None]]) -> Times:
    took = []
    began = time.perf_counter()
    for _ in range(_AT_REST):
        start = time.perf_counter()
        await complete()
        took.append(time.perf_counter() - start)
    return _less_llm(Times.of(took, time.perf_counter() - began))


def _less_llm(times: Times) -> Times:
    llm_ms = _LLM_S * 1000
    return Times(times.requests, times.rate, round(times.p50_ms - llm_ms, 1), round(times.p99_ms - llm_ms, 1))


async def _reading(api: Api, job_id: str, readers: int, seconds: float) -> Times:
    async with api.session(connections=readers) as session:
        read = partial(api.read, session, job_id)
        await read()
        return await by_connections(read, connections=readers, seconds=seconds)


async def _until_done(stack: Stack) -> None:
    database = Database(stack.settings.database_url, size=1)
    try:
        async with database.connection() as connection:
            while await _queries.live(connection):
                await asyncio.sleep(0.5)
                stack.check()
    finally:
        await database.close()


async def _store(stack: Stack, jobs: int) -> str:
    """Store completed jobs, and return the ID of one in the middle."""
    database = Database(stack.settings.database_url, size=1)
    batch = 50_000
    try:
        async with database.connection() as connection:
            for first in range(1, jobs + 1, batch):
                last = min(first + batch - 1, jobs)
                await _queries.store_jobs(
                    connection, first=first, last=last, organization_id=BIRCH.id, team_id=BIRCH.team.id
                )
            await _queries.analyze(connection)
            return str(await _queries.id_of(connection, number=max(jobs // 2, 1)))
    finally:
        await database.close()


@contextmanager
def _constant_route(stack: Stack) -> Iterator[Api]:
    port = free_port()
    server = GuardedProcess(
        [sys.executable, "-m", "infra.bench.constant_route", "--port", str(port)],
        name="constant",
        log=stack.folder / "constant.log",
        stop_signal=signal.SIGTERM,
    )
    try:
        server.wait_ready(lambda: _listens(port), timeout_s=30)
        yield Api(f"http://{HOST}:{port}", "none", "none", "none")
    finally:
        server.stop()


def _listens(port: int) -> bool:
    return any(one.laddr.port == port for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN)


def _idle_memory(stack: Stack) -> dict[str, float]:
    """Return the PSS of each process of ours, in megabytes, and the sum of them."""
    time.sleep(_IDLE_S)
    ours = {name: psutil.Process(pid) for name, pid in stack.pids().items() if name in {*WORKERS, ALL, PROCESSES, API}}
    if PROCESSES in ours:
        # Forked in the order of the stages.
        forked = sorted(ours[PROCESSES].children(), key=lambda child: child.pid)
        ours |= dict(zip(WORKERS, forked, strict=True))
    memory = {name: round(process.memory_full_info().pss / _MEGABYTE, 1) for name, process in ours.items()}
    return memory | {"together": round(sum(memory.values()), 1)}


def _plot(report: Report, rates: Sequence[float]) -> str:
    times = {one.name: one.times for one in report.requests}
    bars = []
    for rate in rates:
        measured = times[_followed(rate)]
        bars += [Bar(f"{rate:g} jobs/s, half of them", measured.p50_ms, "ours")]
        bars += [Bar(f"{rate:g} jobs/s, 99 of 100", measured.p99_ms, "peer")]
    note = "from the POST to the answer of GET with Prefer: wait, less the LLM's second; two cores for everything"
    return draw("Milliseconds that a caller waits beyond the LLM, at most", note, bars, is_ordered=False)


def _show(report: Report) -> None:
    console = Console(highlight=False)
    table = Table("request", "p50, ms", "p99, ms", "a second", "constant route", "ratio")
    for one in report.requests:
        beside = f"{one.beside.rate:,.0f}/s, p99 {one.beside.p99_ms:g} ms" if one.beside else ""
        ratio = f"{one.of_beside:.2f}" if one.of_beside else ""
        times = one.times
        table.add_row(one.name, f"{times.p50_ms:g}", f"{times.p99_ms:g}", f"{times.rate:,.0f}", beside, ratio)
    if report.requests:
        console.print(table)
    for fleet, memory in report.memory_mb.items():
        parts = ", ".join(f"{name} {megabytes:.0f}" for name, megabytes in memory.items() if name != "together")
        console.print(f"Idle memory, {fleet}: {memory['together']:.0f} MB ({parts})")


if __name__ == "__main__":
    sys.exit(main())
