"""`python -m infra.bench.replay`: finding and replaying many failed events, on embedded servers, in one process.

Every filter is timed as an operator's list is: a page, with the total. The replay runs without a limit of its rate, and
ends when the broker has every request and Postgres knows that it has.
"""

import argparse
import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiosql
from pydantic import BaseModel
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from infra.clock import SystemClock
from infra.local.servers import start_postgres, start_valkey
from infra.migrations import upgrade
from infra.postgres import Database
from infra.settings import Settings
from producers.broker import Broker
from producers.replay.apply import Replays
from producers.replay.failed import FailedEvents, Filter
from producers.replay.plans import Plans
from streams.jobs.topics import JOB_REQUESTS

_queries = aiosql.from_path(Path(__file__).with_name("replay.sql"), "asyncpg")

_ORGANIZATIONS = 50
_TRACEBACK_LINES = 60
_UNLIMITED = 1e6


class ReplayReport(BaseModel):
    """The result of a run. `list_s`: by filter, the seconds until a page and its total are there."""

    events: int
    list_s: dict[str, float]
    plan_s: float
    apply_s: float
    replayed_per_s: float
    entries_in_stream: int


def main() -> int:
    """Run the benchmark with the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.replay", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000, help="failed events (default 100000)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    options = parser.parse_args()
    # Nothing is evicted: each entry has about a kilobyte.
    memory = f"{256 + options.events // 500}mb"
    with start_valkey(options=("--maxmemory", memory)) as valkey, start_postgres() as postgres:
        settings = Settings.model_validate({"database_url": postgres.url, "broker_url": valkey.url})
        report = asyncio.run(_measure(settings, options.events))
    if options.json:
        print(report.model_dump_json(indent=2))
    else:
        _print(report)
    return 0 if report.entries_in_stream == options.events else 1


async def _measure(settings: Settings, events: int) -> ReplayReport:
    await upgrade(settings.database_url)
    database, broker = Database(settings.database_url, size=3), Broker(settings, name="bench")
    clock = SystemClock()
    try:
        async with database.transaction() as connection:
            await _queries.add_organizations(connection, organizations=_ORGANIZATIONS)
            await _queries.add_failed_jobs(
                connection, jobs=events, organizations=_ORGANIZATIONS, padding=_TRACEBACK_LINES
            )
        async with database.transaction() as connection:
            await connection.execute("ANALYZE")
        listed = await _list(FailedEvents(database, clock))
        began = time.perf_counter()
        plan = await Plans(database, clock).make(Filter(stage="generation"), by="bench")
        planned = time.perf_counter()
        await Replays(database, broker, clock).apply(plan.id, rate=_UNLIMITED)
        applied = time.perf_counter()
        async with Redis.from_url(settings.broker_url) as client:
            entries = int(await client.xlen(JOB_REQUESTS))
    finally:
        await broker.close()
        await database.close()
    return ReplayReport(
        events=events,
        list_s=listed,
        plan_s=round(planned - began, 2),
        apply_s=round(applied - planned, 2),
        replayed_per_s=round(events / (applied - planned)),
        entries_in_stream=entries,
    )


async def _list(failed: FailedEvents) -> dict[str, float]:
    one = (await failed.page(Filter(), limit=1)).failed_events[0]
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    filters = {
        "none": Filter(),
        "stage": Filter(stage="generation"),
        "error": Filter(error_type="TimeoutError"),
        "organization": Filter(organization_id="bench-7"),
        "job": Filter(job_id=one.job_id),
        "reason": Filter(reason="given_up"),
        "trace": Filter(trace_id="0" * 32),
        "since": Filter(since=hour_ago),
        "stage, error, organization, until": Filter(
            stage="generation", error_type="TimeoutError", organization_id="bench-7", until=hour_ago
        ),
    }
    seconds = {}
    for name, chosen in filters.items():
        began = time.perf_counter()
        await failed.page(chosen)
        seconds[name] = round(time.perf_counter() - began, 3)
    return seconds


def _print(report: ReplayReport) -> None:
    table = Table(title=f"{report.events:,} failed events", title_justify="left")
    table.add_column("what")
    table.add_column("seconds", justify="right")
    for name, seconds in report.list_s.items():
        table.add_row(f"list, filter: {name}", f"{seconds:.3f}")
    table.add_row("plan", f"{report.plan_s:.2f}")
    table.add_row("apply", f"{report.apply_s:.2f}")
    console = Console()
    console.print(table)
    console.print(f"{report.replayed_per_s:,} replayed a second; {report.entries_in_stream:,} entries in the stream.")


if __name__ == "__main__":
    sys.exit(main())
