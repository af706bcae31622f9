"""`python -m infra.bench.bulk` cancels a hundred thousand waiting jobs by plans, on a running pipeline.

The jobs come in through the stream and wait, since generation is paused. A plan is made by the command, applied by it,
killed in the middle, applied by the console, paused, gone on with, and aborted; a second plan cancels what is left.
Then everything must have come to its end: each job cancelled and told once, all quota released, `teamfit verify` clean.
With `--kind discard` or `--kind replay` the same is done to as many failed events. With `--kind erase` the texts of all
these jobs are erased: by the command, which is killed, and by the API to the end.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import aiosql
from rich.console import Console
from rich.table import Table

from infra.bench.bulk_operator import Operator
from infra.bench.footprint import Usage
from infra.local.organizations import ACME
from infra.local.stack import API, WORKERS, Stack
from infra.postgres import Database
from infra.settings import Settings
from producers.client import JobRequests, Request

_queries = aiosql.from_path(Path(__file__).with_name("bulk.sql"), "asyncpg")
_replay = aiosql.from_path(Path(__file__).with_name("replay.sql"), "asyncpg")

_POLL_S: Final = 0.25
_DEADLINE_S: Final = 600.0
_CHUNK: Final = 5_000
_SLOW_MS: Final = 100


@dataclass(slots=True)
class Report:
    """A run has measured these seconds of each step, and has counted this."""

    kind: str
    items: int
    seconds: dict[str, float] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    slowest: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Bench:
    """The steps of a run share these."""

    stack: Stack
    database: Database
    operator: Operator
    usage: Usage
    report: Report
    said: Callable[[str], None]

    async def timed(self, name: str, work: Awaitable[Any]) -> Any:  # noqa: ANN401 - whatever the work returns
        """Note how long a step takes."""
        self.said(name)
        began = time.monotonic()
        result = await work
        self.report.seconds[name] = round(time.monotonic() - began, 2)
        return result

    async def until(self, what: str, reached: Callable[[], Awaitable[bool]]) -> None:
        """Wait for a condition, and sample memory meanwhile."""
        deadline = time.monotonic() + _DEADLINE_S
        while not await reached():
            self.stack.check()
            self.usage.sample()
            if time.monotonic() > deadline:
                raise SystemExit(f"gave up waiting for {what}")
            await asyncio.sleep(_POLL_S)

    async def numbers(self) -> Mapping[str, int]:
        """Return how the jobs and the ledger stand."""
        async with self.database.transaction() as connection:
            await _queries.leave_out_of_the_log(connection)
            return dict(await _queries.numbers(connection, organization_id=ACME.id))

    def require(self, what: str, *, found: object, wanted: object) -> None:
        """Note what does not hold."""
        if found != wanted:
            self.report.wrong.append(f"{what}: {found}, not {wanted}")


def main() -> int:
    """Run the benchmark with the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.bulk", description=__doc__)
    parser.add_argument("--items", type=int, default=100_000, help="waiting jobs or failed events (default 100000)")
    kinds = ["cancel", "discard", "replay", "erase"]
    parser.add_argument("--kind", choices=kinds, default="cancel", help="what is done")
    parser.add_argument("--rate", type=int, default=2_000, help="items a second (default 2000)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    options = parser.parse_args()
    progress = Console(stderr=True)
    began = time.monotonic()

    def said(step: str) -> None:
        progress.print(f"{time.monotonic() - began:6.1f} s, load {os.getloadavg()[0]:.2f}: {step} …")

    with Stack(Settings(console=True), llm_latency_s=0.1, durable=False, parts=(*WORKERS, API), report=said) as stack:
        report = asyncio.run(_measure(stack, options, said))
    if options.json:
        print(json.dumps(asdict(report), indent=2))
    else:
        _show(report)
    return 1 if report.wrong else 0


async def _measure(stack: Stack, options: argparse.Namespace, said: Callable[[str], None]) -> Report:
    database = Database(stack.settings.database_url, size=2)
    report = Report(options.kind, options.items)
    try:
        async with Operator.of(stack, options.kind) as operator:
            bench = Bench(stack, database, operator, Usage(stack.pids()), report, said)
            async with database.connection() as connection:
                await _queries.log_slow_statements(connection)
                await _queries.reload(connection)
            await operator.run("pause", "generation", "--because", "a benchmark", "--yes")
            await (_fill_line(bench) if options.kind in {"cancel", "erase"} else _fill_failed(bench))
            await (_erase(bench) if options.kind == "erase" else _work_through(bench, options.rate))
            settled = {"cancel": _cancelled, "erase": _cancelled, "discard": _discarded, "replay": _replayed}
            await settled[options.kind](bench)
            await operator.run("resume", "generation")
            report.slowest = operator.slow_statements()
            code, output = await bench.timed("teamfit verify", operator.ended("verify"))
            bench.require("teamfit verify", found=(code, output if code else ""), wanted=(0, ""))
            report.peak_mb = {name: round(size) for name, size in {**bench.usage.peak_mb(), **operator.peak_mb}.items()}
    finally:
        await database.close()
    return report


async def _fill_line(bench: Bench) -> None:
    """Have as many jobs wait, each with its quota reserved."""
    jobs = bench.report.items

    async def send() -> None:
        async with JobRequests.connect(bench.stack.settings.broker_url, source="bench") as requests:
            for first in range(0, jobs, _CHUNK):
                numbers = range(first, min(first + _CHUNK, jobs))
                await requests.submit_many([_request(number) for number in numbers])

                async def taken(sent: int = numbers[-1] + 1) -> bool:
                    return (await bench.numbers())["reserved"] >= sent - 2 * _CHUNK

                await bench.until("jobs to be admitted", taken)

    async def wait() -> bool:
        found = await bench.numbers()
        return found["reserved"] == found["pending"] == jobs

    await bench.timed(f"{jobs:,} jobs come in", send())
    await bench.timed("all of them wait", bench.until("jobs to wait", wait))


def _request(number: int) -> Request:
    wish = f"A session outdoors for 6 people, variant {number}"
    return Request(organization_id=ACME.id, team_id=ACME.team.id, requirements=wish)


async def _fill_failed(bench: Bench) -> None:
    """Have as many failed events, each of a job of its own."""

    async def add() -> None:
        async with bench.database.connection() as connection:
            # All are one team's, which must be one organization's if their jobs are to be admitted again.
            await _replay.add_organizations(connection, organizations=1)
            await _queries.add_team(connection)
            await _replay.add_failed_jobs(connection, jobs=bench.report.items, organizations=1, padding=60)
            await connection.execute("ANALYZE")

    await bench.timed(f"{bench.report.items:,} failed events are written", add())


async def _work_through(bench: Bench, rate: int) -> None:
    """Make a plan and apply it: killed, gone on with, paused, aborted; then another for what is left."""
    operator, items = bench.operator, bench.report.items
    plan = await bench.timed("the plan", operator.plan())
    effects = plan["effects"]
    bench.report.counted |= {f"effect: {name}": value for name, value in effects.items() if isinstance(value, int)}
    bench.require("the plan's items", found=plan["total"], wanted=items)
    page = await bench.timed("a page of the plan, in the console", operator.page(plan["id"]))
    bench.require("the page has the number", found=f"{items:,}" in page, wanted=True)

    async def done(part: float, of: str) -> None:
        async def reached() -> bool:
            return await operator.done(of) >= part * items

        await bench.until(f"{part:.0%} to be done", reached)

    applier = await operator.begin(operator.kind, "apply", plan["id"], *operator.how(rate))
    await bench.timed("a quarter is done, by the command; then SIGKILL", done(0.25, plan["id"]))
    await operator.kill(applier)
    await bench.timed("another may, in the console", operator.apply_in_console(plan["id"], rate))
    await bench.timed("half is done, by the console", done(0.5, plan["id"]))
    await bench.timed("paused", operator.post(f"{plan['id']}/pause"))
    stood = await operator.done(plan["id"])
    await bench.timed("a page of the paused plan", operator.page(plan["id"]))
    bench.require("what is done of a paused plan", found=await operator.done(plan["id"]), wanted=stood)
    await operator.apply_in_console(plan["id"], rate)
    await done(0.75, plan["id"])
    await bench.timed("aborted", operator.run(operator.kind, "abort", plan["id"]))
    await bench.until("the applier to stop", operator.has_stopped(plan["id"]))
    aborted = await operator.status(plan["id"])
    bench.require("the digest", found=aborted.get("digest"), wanted=plan.get("digest"))
    rest = await bench.timed("a plan of what is left", operator.plan())
    bench.require("jobs in both plans", found=rest["total"] + operator.count(aborted), wanted=items)
    await bench.timed(
        "the rest, by the command", operator.run(operator.kind, "apply", rest["id"], *operator.how(10_000))
    )
    bench.report.counted["left of the second plan"] = rest["total"] - operator.count(await operator.status(rest["id"]))


async def _erase(bench: Bench) -> None:
    """Erase the texts of all the jobs: by the command, which is killed, and by the API to the end."""
    operator, items = bench.operator, bench.report.items

    async def quarter() -> bool:
        return (await bench.numbers())["erased"] >= items / 4

    command = await operator.begin("erase", "--organization", ACME.id, "--yes")
    await bench.timed("a quarter is erased, by the command; then SIGKILL", bench.until("jobs to be erased", quarter))
    await operator.kill(command)
    after, calls = None, list[float]()
    while not calls or after is not None:
        began = time.monotonic()
        so_far = await operator.erase_on(ACME.id, after)
        after = so_far["next"]
        calls.append(time.monotonic() - began)
        bench.said(f"{so_far['left']:,} of {so_far['total']:,} jobs are left after {calls[-1]:.1f} s")
    bench.report.seconds |= {"all calls of the API": round(sum(calls), 2), "the longest": round(max(calls), 2)}
    bench.report.counted["calls of the API"] = len(calls)
    bench.require("erased", found=(await bench.numbers())["erased"], wanted=items)


async def _cancelled(bench: Bench) -> None:
    """Have each job cancelled and told once, and all quota released."""

    async def settled() -> bool:
        found = await bench.numbers()
        return found["cancelled"] == bench.report.items and not found["reserved"] and not found["in_line"]

    await bench.timed("quota is released and the read model follows", bench.until("jobs to be cancelled", settled))
    found = await bench.numbers()
    bench.report.counted |= found
    for name in ("cancelled", "released", "told", "told_once"):
        bench.require(name, found=found[name], wanted=bench.report.items)


async def _discarded(bench: Bench) -> None:
    async with bench.database.transaction() as connection:
        found = {row["state"]: row["events"] async for row in _queries.failed_states(connection)}
    bench.require("failed events", found=found, wanted={"discarded": bench.report.items})


async def _replayed(bench: Bench) -> None:
    """Have each job run again, waiting: none twice."""

    async def waits() -> bool:
        async with bench.database.transaction() as connection:
            return bool(await _queries.reruns(connection) == bench.report.items)

    await bench.timed("each job waits for its second run", bench.until("reruns to be admitted", waits))
    async with bench.database.transaction() as connection:
        found = {row["state"]: row["events"] async for row in _queries.failed_states(connection)}
    bench.require("failed events", found=found, wanted={"replayed": bench.report.items})


def _show(report: Report) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    table = Table("step", "seconds")
    for name, seconds in report.seconds.items():
        table.add_row(name, f"{seconds:g}")
    console.print(table)
    _print(console, "Counted", [f"{name} {number:,}" for name, number in report.counted.items()])
    _print(console, "Peak memory, MB", [f"{name} {size:,.0f}" for name, size in report.peak_mb.items()])
    _print(console, f"Statements of more than {_SLOW_MS} ms", report.slowest)
    _print(console, "Does not hold", report.wrong)


def _print(console: Console, what: str, lines: Sequence[str]) -> None:
    console.print(f"{what}: {'; '.join(lines) or 'none'}")


if __name__ == "__main__":
    sys.exit(main())
