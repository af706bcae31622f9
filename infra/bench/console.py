"""`python -m infra.bench.console` measures every page and list of a console over a million jobs.

The servers are embedded, the pipeline is idle. One request follows the other, all views in turn, so that none profits
from its own last answer. Then the plan of every statement behind a view is read: none may read a whole table. A view
that misses a bound ends the run with status 1.
"""

import argparse
import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Final

import aiohttp
from rich.console import Console
from rich.table import Table
from starlette.types import ASGIApp

from infra.api import create_api
from infra.api.console import create_app
from infra.api.leaving import Server
from infra.api.server import configuration
from infra.auth import JOBS, OPERATOR, issue_token
from infra.bench.console_rows import Amounts, fill
from infra.bench.console_views import BIG, Caller, View, all_views
from infra.bench.http_load import Times
from infra.bench.plan_log import Reading, log_plans, most, readings
from infra.console.desk import COOKIE
from infra.console.sessions import Sessions
from infra.local.processes import HOST
from infra.local.servers import Postgres, start_postgres, start_valkey
from infra.migrations import upgrade
from infra.operations.job_search import COUNTED
from infra.postgres import Database
from infra.settings import Settings

P50_MS: Final = 200.0
P99_MS: Final = 500.0
_KEY: Final = "a key that is only good for a benchmark"
_LONGEST_S: Final = 120.0
# A page and its count read this much of an index from one end; a month's ledger of the largest organization is more.
_BOUNDED: Final = 2 * COUNTED


@dataclass(frozen=True, slots=True)
class Measured:
    """A view took these times. `read` is the step that looked at most rows of a big table."""

    view: str
    times: Times
    read: Reading | None

    def misses(self, jobs: int) -> str | None:
        """Return what it misses, if anything."""
        if self.times.p50_ms > P50_MS or self.times.p99_ms > P99_MS:
            return "too slow"
        if self.read is None or self.read.rows <= _BOUNDED:
            return None
        return "reads a table" if self.read.node == "Seq Scan" or self.read.rows > jobs / 2 else None


def main() -> int:
    """Run the benchmark with the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.console", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000, help="jobs stored (default 1000000)")
    parser.add_argument("--rounds", type=int, default=50, help="requests for each view (default 50)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    options = parser.parse_args()
    step = _Steps()
    amounts = Amounts(options.jobs, failed_events=max(100, options.jobs // 10))
    with start_valkey() as valkey, start_postgres(durable=False) as postgres:
        settings = Settings.model_validate(
            {"database_url": postgres.url, "broker_url": valkey.url, "signing_key": _KEY}
        )
        measured = asyncio.run(_measure(settings, postgres, amounts, options.rounds, step))
    if options.json:
        lines = [asdict(one) | {"misses": one.misses(amounts.jobs)} for one in measured]
        print(json.dumps({"amounts": asdict(amounts), "load": os.getloadavg(), "views": lines}, indent=2))
    else:
        _show(measured, amounts)
    return 1 if any(one.misses(amounts.jobs) for one in measured) else 0


class _Steps:
    """Says what is done, and when it began."""

    def __init__(self) -> None:
        self._console, self._began = Console(stderr=True), time.monotonic()

    def __call__(self, name: str) -> None:
        load = ", ".join(f"{one:.2f}" for one in os.getloadavg())
        self._console.print(f"{time.monotonic() - self._began:6.1f} s, load {load}: {name} …")


async def _measure(
    settings: Settings, postgres: Postgres, amounts: Amounts, rounds: int, step: Callable[[str], None]
) -> list[Measured]:
    await upgrade(settings.database_url)
    await fill(settings.database_url, amounts, step=step)
    database = Database(settings.database_url, size=2)
    try:
        views = await all_views(database)
        secret = (await Sessions(database).begin("bench", "operator")).secret
    finally:
        await database.close()
    step(f"{len(views)} views, {rounds} times")
    async with _callers(settings, secret) as callers:
        took = await _timed(callers, views, rounds)
    step("plans")
    await log_plans(settings.database_url)
    async with _callers(settings, secret) as callers:
        read = await _read(callers, views, postgres)
    times = {view: Times.of(seconds, sum(seconds)) for view, seconds in took.items()}
    return [Measured(str(view), times[view], read[view]) for view in views]


async def _timed(
    callers: Mapping[Caller, aiohttp.ClientSession], views: Sequence[View], rounds: int
) -> dict[View, list[float]]:
    took: dict[View, list[float]] = {view: [] for view in views}
    for nth in range(rounds + 1):
        for view in views:
            began = time.perf_counter()
            await _ask(callers, view)
            if nth:  # the first round opens connections and compiles templates
                took[view].append(time.perf_counter() - began)
    return took


async def _read(
    callers: Mapping[Caller, aiohttp.ClientSession], views: Sequence[View], postgres: Postgres
) -> dict[View, Reading | None]:
    read = {}
    for view in views:
        before = postgres.log.stat().st_size
        await _ask(callers, view)
        read[view] = most(readings(postgres.log, after=before))
    return read


async def _ask(callers: Mapping[Caller, aiohttp.ClientSession], view: View) -> None:
    async with callers[view.caller].get(view.path, allow_redirects=False) as answer:
        body = await answer.read()
        if answer.status != 200:  # noqa: PLR2004 - found
            raise RuntimeError(f"{view}: {answer.status} {body[:500]!r}")


@asynccontextmanager
async def _callers(settings: Settings, secret: str) -> AsyncIterator[Mapping[Caller, aiohttp.ClientSession]]:
    """Serve the console and the API; give a client for each kind of caller."""

    def bearer(scope: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {issue_token(_KEY, organization_id=BIG, subject='bench', scopes=(scope,))}"}

    async with (
        _served(create_app(settings), settings, {"Cookie": f"{COOKIE}={secret}"}) as console,
        _served(create_api(settings), settings, bearer(OPERATOR), bearer(JOBS)) as (operator, customer),
    ):
        yield {"console": console[0], "operator": operator, "customer": customer}


@asynccontextmanager
async def _served(
    app: ASGIApp, settings: Settings, *headers: dict[str, str]
) -> AsyncIterator[list[aiohttp.ClientSession]]:
    with socket.create_server((HOST, 0)) as listener:
        server = Server(configuration(app, settings))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        address = f"http://{HOST}:{listener.getsockname()[1]}"
        limit = aiohttp.ClientTimeout(total=_LONGEST_S)
        sessions = [aiohttp.ClientSession(address, headers=one, timeout=limit) for one in headers]
        try:
            yield sessions
        finally:
            for session in sessions:
                await session.close()
            server.should_exit = True
            await running


def _show(measured: Sequence[Measured], amounts: Amounts) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    table = Table("view", "p50, ms", "p99, ms", "most rows read", "of", "by", "misses")
    for one in measured:
        read = (f"{one.read.rows:,}", one.read.table, one.read.node) if one.read else ("0", "", "")
        times = (f"{one.times.p50_ms:g}", f"{one.times.p99_ms:g}")
        table.add_row(one.view, *times, *read, one.misses(amounts.jobs) or "")
    console.print(table)
    missed = sum(one.misses(amounts.jobs) is not None for one in measured)
    load = ", ".join(f"{one:.2f}" for one in os.getloadavg())
    console.print(
        f"{amounts.jobs:,} jobs, {amounts.failed_events:,} failed events; bounds: {P50_MS:g} ms at p50, {P99_MS:g} ms "
        f"at p99. {len(measured)} views, {missed} miss one. Load: {load}."
    )


if __name__ == "__main__":
    sys.exit(main())
