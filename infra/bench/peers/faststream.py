"""FastStream on Redis streams with a group, on uvloop.

Variants: `single` hands over one message at a time, 500 a read, each acknowledged by itself; `batch` hands over up to
500 messages, acknowledged together. It polls every 10 ms (a read blocks that long). One worker in turn is faster than
several for jobs that do nothing. Sending fills pipelines of 500.
"""

import asyncio
import logging
from collections.abc import Sequence

import uvloop
from faststream import FastStream
from faststream.redis import Pipeline, RedisBroker, StreamSub
from redis.asyncio import Redis

from infra.bench.peers import meter

_READ = 500

logging.disable(logging.CRITICAL)
broker = RedisBroker(meter.URL, logger=None, apply_types=False)
_batch = meter.VARIANT == "batch"
_stream = StreamSub(
    "faststream", group="bench", consumer="one", batch=_batch, max_records=_READ, polling_interval=10, last_id="0"
)


async def one(argument: str) -> None:
    """Count a job."""
    meter.tick(argument)


async def many(arguments: list[str]) -> None:
    """Count a batch."""
    meter.tick_all(len(arguments))


def work() -> None:
    """Run the application."""
    uvloop.install()
    broker.subscriber(stream=_stream)(many if _batch else one)
    asyncio.run(FastStream(broker, logger=None).run())


async def send(argument: str) -> None:
    """Publish one message."""
    await broker.publish(argument, stream="faststream")


async def send_all(arguments: Sequence[str]) -> None:
    """Publish in pipelines."""
    async with Redis.from_url(meter.URL) as client:
        for start in range(0, len(arguments), _READ):
            pipeline: Pipeline = client.pipeline(transaction=False)
            for argument in arguments[start : start + _READ]:
                await broker.publish(argument, stream="faststream", pipeline=pipeline)
            await pipeline.execute()


async def produce() -> None:
    """Send what the role asks for."""
    async with broker:
        await meter.send_jobs(send, send_all)


if __name__ == "__main__":
    meter.main(work=work, produce=produce)
