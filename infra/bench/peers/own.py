"""Faust on this project's transport, on uvloop.

Variants: `events` (`async for`), `acks` (explicit acknowledgement, as the pipeline's stages do), `batches`
(`stream.take`). Each has one agent with concurrency 1.
"""

import os
import sys
from collections.abc import Sequence
from typing import cast

import faust
import uvloop
from faust.streams import Stream
from faust.types import StreamT

from infra.bench.peers import meter
from streams.redis.bulk import ProducerRecord, send_many

_BATCH = 500
_TOGETHER = 5000

app = faust.App("bench", broker=meter.URL, topic_partitions=1, datadir=os.environ["BENCH_FOLDER"])
topic = app.topic("own", key_type=bytes, key_serializer="raw", value_type=bytes, value_serializer="raw")


async def events(stream: StreamT[bytes]) -> None:
    """Take events one by one; each is acknowledged when the next is asked for."""
    tick = meter.tick
    async for value in stream:
        tick(cast("str", value))  # bytes do as well for `float`


async def acks(stream: StreamT[bytes]) -> None:
    """Take events one by one and acknowledge each by hand."""
    tick = meter.tick
    async for event in cast("Stream[bytes]", stream).noack().events():
        tick(cast("str", event.value))  # as above
        event.ack()


async def batches(stream: StreamT[bytes]) -> None:
    """Take events in batches."""
    async for values in stream.take(_BATCH, within=1.0):
        meter.tick_all(len(values))


app.agent(topic, name="bench")({"acks": acks, "batches": batches}.get(meter.VARIANT, events))


def work() -> None:
    """Run Faust's worker without its web server."""
    uvloop.install()
    sys.argv = ["faust", "worker", "--without-web", "-l", "error"]
    app.main()


async def send(job: str) -> None:
    """Send one event and wait until the server has it."""
    await (await topic.send(value=job.encode()))


async def send_all(jobs: Sequence[str]) -> None:
    """Send some thousands, wait until the server has them, and so on."""
    for start in range(0, len(jobs), _TOGETHER):
        await send_many(topic, [ProducerRecord(job.encode()) for job in jobs[start : start + _TOGETHER]])


async def produce() -> None:
    """Send what the role asks for, with a producer alone."""
    await app.maybe_start_producer()
    await meter.send_jobs(send, send_all)
    await app.producer.stop()


if __name__ == "__main__":
    meter.main(work=work, produce=produce)
