"""A Faust worker whose agent does nothing, as the transport's benchmark runs it in a process of its own.

Settings come from the environment (`BENCH_BROKER`, `BENCH_TOPIC`, `BENCH_EVENTS`, `BENCH_BATCH`); the result is one
line of JSON on standard output.
"""

import asyncio
import json
import os
import resource
import signal
import sys
import time

import faust
from faust.types import StreamT

EVENTS = int(os.environ.get("BENCH_EVENTS", "0"))
BATCH = int(os.environ.get("BENCH_BATCH", "0"))

app = faust.App(
    "bench",
    broker=os.environ.get("BENCH_BROKER", "redis://127.0.0.1:6379/0"),
    topic_partitions=1,
    web_enabled=False,
    datadir=os.environ.get("BENCH_FOLDER", "."),
)
topic = app.topic(
    os.environ.get("BENCH_TOPIC", "bench"),
    key_type=bytes,
    key_serializer="raw",
    value_type=bytes,
    value_serializer="raw",
)


class Progress:
    """How far the agent has come."""

    done = 0
    began = 0.0
    latencies: list[float] = []  # noqa: RUF012 - one process, one run


async def one_by_one(stream: StreamT[bytes]) -> None:
    """Take events one by one; Faust acknowledges each when the next is asked for."""
    progress = Progress
    async for _ in stream:
        progress.done += 1


async def in_batches(stream: StreamT[bytes]) -> None:
    """Take events in batches."""
    progress = Progress
    async for values in stream.take(BATCH, within=1.0):
        progress.done += len(values)


async def timed(stream: StreamT[bytes]) -> None:
    """Note how long each event took from its sender, which wrote the time into it."""
    progress = Progress
    async for value in stream:
        progress.latencies.append(time.time() - float(value))
        progress.done += 1


app.agent(topic, name="bench")(
    timed if os.environ.get("BENCH_TIMED") else in_batches if BATCH else one_by_one,
)


@app.task  # type: ignore[untyped-decorator]  # Faust's decorator has no types
async def measure() -> None:
    """Wait for the first event and for the last one, report, and stop the worker."""
    while not Progress.done:  # noqa: ASYNC110 - an event set by the agent would be measured with it
        await asyncio.sleep(0.001)
    first, began = Progress.done, time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    while Progress.done < EVENTS:  # noqa: ASYNC110 - the same
        await asyncio.sleep(0.005)
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    report = {
        "events": EVENTS - first,
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime - cpu,
        "peak_memory_mb": used.ru_maxrss / 1024,
        "latencies": Progress.latencies,
    }
    sys.__stdout__.write(json.dumps(report) + "\n")  # type: ignore[union-attr]  # Faust redirects sys.stdout to its log
    sys.__stdout__.flush()  # type: ignore[union-attr]
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    if os.environ.get("BENCH_UVLOOP"):
        import uvloop

        uvloop.install()
    app.main()
