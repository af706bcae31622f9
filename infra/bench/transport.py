"""`python -m infra.bench.transport`: the Redis Streams transport beside what its pieces can do at most.

Each number comes with its yardstick from the same run on the same server: draining beside a raw loop of redis-py that
reads 500 entries at a time and acknowledges them in one command, sending beside a raw pipeline of XADD. Ratios travel
from one machine to another; events per second do not.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import faust
from pydantic import BaseModel
from redis import Redis
from rich.console import Console
from rich.table import Table

from infra.local.servers import start_valkey

_PAYLOAD = b'{"id": "%032d", "data": "' + b"x" * 200 + b'"}'
_READ = 500  # entries that the raw loop reads and acknowledges at a time
_FEW, _MANY = 1_000, 100_000  # waiting entries between which memory is compared
_LATENCY_RATE, _LATENCY_EVENTS = 100, 300


class Drain(BaseModel):
    """How fast entries that wait are worked off by one process."""

    name: str
    events_per_s: float
    of_raw: float
    cpu_s_per_10k: float
    peak_memory_mb: float


class Report(BaseModel):
    """The result of a run."""

    events: int
    drains: list[Drain]
    enqueue_per_s: float
    enqueue_of_raw: float
    latency_p50_ms: float
    latency_p99_ms: float
    memory_growth_mb: float


def main() -> int:
    """Run the benchmark with the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.transport", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000, help="entries to drain (default 100000)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    options = parser.parse_args()
    with start_valkey(append_only=False) as server, tempfile.TemporaryDirectory() as folder:
        report = measure(f"redis://127.0.0.1:{server.port}/0", options.events, folder)
    print(report.model_dump_json(indent=2)) if options.json else show(report)
    return 0


def measure(url: str, events: int, folder: str) -> Report:
    """Run every measurement on one server."""
    client = Redis.from_url(url)
    raw = drain_raw(client, events)
    drains = [raw]
    for name, extra in (
        ("transport, one by one", {}),
        ("transport, one by one, uvloop", {"BENCH_UVLOOP": "1"}),
        ("transport, batches of 500", {"BENCH_BATCH": "500"}),
    ):
        fill(client, "bench", events)
        drains.append(drain_faust(name, url, events, folder, extra, raw.events_per_s))
    sent, raw_sent = asyncio.run(enqueue(url, events // 2)), enqueue_raw(client, events // 2)
    latencies = latency(client, url, folder)
    memory = []
    for waiting in (_FEW, _MANY):
        fill(client, "bench", waiting)
        memory.append(drain_faust("", url, waiting, folder, {}, 1.0).peak_memory_mb)
    return Report(
        events=events,
        drains=drains,
        enqueue_per_s=sent,
        enqueue_of_raw=sent / raw_sent,
        latency_p50_ms=statistics.median(latencies) * 1000,
        latency_p99_ms=statistics.quantiles(latencies, n=100)[98] * 1000,
        memory_growth_mb=memory[1] - memory[0],
    )


def fill(client: Redis, stream: str, count: int) -> None:
    """Write entries that wait; what was in the stream before goes."""
    client.delete(stream)
    for start in range(0, count, 1000):
        pipeline = client.pipeline(transaction=False)
        for number in range(start, min(start + 1000, count)):
            pipeline.xadd(stream, {"key": b"%d" % number, "event": _PAYLOAD % number})
        pipeline.execute()


def drain_raw(client: Redis, events: int) -> Drain:
    """The most that redis-py can do: no decoding, no agents, no recovery."""
    fill(client, "raw", events)
    client.xgroup_create("raw", "bench", "0")
    done, began, cpu = 0, time.perf_counter(), time.process_time()
    while done < events:
        reply: Any = client.xreadgroup("bench", "raw", {"raw": ">"}, count=_READ)
        [[_, entries]] = reply
        client.xack("raw", "bench", *[entry_id for entry_id, _ in entries])
        done += len(entries)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    client.delete("raw")
    return Drain(
        name="raw loop of redis-py",
        events_per_s=events / seconds,
        of_raw=1.0,
        cpu_s_per_10k=cpu / events * 10_000,
        peak_memory_mb=0.0,
    )


def drain_faust(name: str, url: str, events: int, folder: str, extra: dict[str, str], raw_per_s: float) -> Drain:
    """Drain what waits with one Faust worker."""
    result = run_worker(url, events, folder, extra)
    rate = result["events"] / result["seconds"]
    return Drain(
        name=name,
        events_per_s=rate,
        of_raw=rate / raw_per_s,
        cpu_s_per_10k=result["cpu_seconds"] / result["events"] * 10_000,
        peak_memory_mb=result["peak_memory_mb"],
    )


def start_worker(url: str, events: int, folder: str, extra: dict[str, str]) -> subprocess.Popen[str]:
    """Start the worker in a process of its own."""
    settings = {"BENCH_BROKER": url, "BENCH_EVENTS": str(events), "BENCH_FOLDER": folder, **extra}
    command = [sys.executable, "-m", "infra.bench.noop_worker", "worker", "--without-web", "-l", "error"]
    return subprocess.Popen(  # noqa: S603 - our own module
        command, env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def run_worker(url: str, events: int, folder: str, extra: dict[str, str]) -> dict[str, Any]:
    """Run the worker to its end; returns what it reported."""
    with start_worker(url, events, folder, extra) as process:
        return read_report(process)


def read_report(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The worker's line of JSON, among what Faust prints."""
    output, _ = process.communicate(timeout=300)
    lines = [line[line.index("{") :] for line in output.splitlines() if '"cpu_seconds"' in line]
    report: dict[str, Any] = json.loads(lines[0])
    return report


async def enqueue(url: str, events: int) -> float:
    """Entries per second through `topic.send`, all of them awaited."""
    app = faust.App("bench-send", broker=url, topic_partitions=1)
    topic = app.topic("sent", key_type=bytes, key_serializer="raw", value_type=bytes, value_serializer="raw")
    await app.maybe_start_producer()
    began = time.perf_counter()
    futures = [await topic.send(key=b"%d" % number, value=_PAYLOAD % number) for number in range(events)]
    await asyncio.gather(*futures)
    seconds = time.perf_counter() - began
    await app.producer.stop()
    return events / seconds


def enqueue_raw(client: Redis, events: int) -> float:
    """Entries per second through redis-py's pipelines of 500 XADDs."""
    client.delete("sent")
    began = time.perf_counter()
    for start in range(0, events, _READ):
        pipeline = client.pipeline(transaction=False)
        for number in range(start, min(start + _READ, events)):
            pipeline.xadd("sent", {"key": b"%d" % number, "event": _PAYLOAD % number})
        pipeline.execute()
    seconds = time.perf_counter() - began
    client.delete("sent")
    return events / seconds


def latency(client: Redis, url: str, folder: str) -> list[float]:
    """Seconds from XADD to the agent at a hundred events a second."""
    client.delete("bench")
    with start_worker(url, _LATENCY_EVENTS, folder, {"BENCH_TIMED": "1"}) as process:
        client.xadd("bench", {"event": repr(time.time())})
        while not acknowledged(client, "bench"):  # a worker that is up: its start is not what is measured
            time.sleep(0.05)
        for _ in range(_LATENCY_EVENTS - 1):
            client.xadd("bench", {"event": repr(time.time())})
            time.sleep(1 / _LATENCY_RATE)
        latencies: list[float] = read_report(process)["latencies"]
    return latencies[1:]


def acknowledged(client: Redis, stream: str) -> bool:
    """Whether the stream's group has acknowledged everything."""
    groups: Any = client.xinfo_groups(stream)
    return bool(groups) and groups[0]["pending"] == 0 and groups[0]["last-delivered-id"] != b"0-0"


def show(report: Report) -> None:
    """Print the report for people."""
    table = Table(title=f"Draining {report.events:,} entries, one process")
    for column in ("", "events/s", "of raw", "CPU s per 10,000", "peak memory MB"):
        table.add_column(column, justify="right" if column else "left")
    for drain in report.drains:
        memory = f"{drain.peak_memory_mb:.0f}" if drain.peak_memory_mb else ""
        table.add_row(
            drain.name, f"{drain.events_per_s:,.0f}", f"{drain.of_raw:.3f}", f"{drain.cpu_s_per_10k:.2f}", memory
        )
    console = Console()
    console.print(table)
    console.print(
        f"sending: {report.enqueue_per_s:,.0f}/s, {report.enqueue_of_raw:.2f} of a raw pipeline",
        f"latency at {_LATENCY_RATE}/s: p50 {report.latency_p50_ms:.1f} ms, p99 {report.latency_p99_ms:.1f} ms",
        f"memory with {_MANY:,} waiting over {_FEW:,}: {report.memory_growth_mb:+.1f} MB",
        sep="\n",
    )


if __name__ == "__main__":
    sys.exit(main())
