"""taskiq with the streams of taskiq-redis, on uvloop.

500 entries a read, 100 deliveries ahead, 20 tasks at a time (more were slower); no validation of parameters. Its broker
acknowledges each task by itself, there is no batching to turn on. Sending puts 100 together on pooled connections.
"""

import asyncio
import logging

import uvloop
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

from infra.bench.peers import meter

logging.disable(logging.CRITICAL)
# "0": a group made by the worker would otherwise skip what waits.
broker = RedisStreamBroker(meter.URL, consumer_id="0", xread_count=500)


@broker.task
async def job(argument: str) -> None:
    """Count the job."""
    meter.tick(argument)


async def _work() -> None:
    await broker.startup()
    await run_receiver_task(broker, validate_params=False, max_async_tasks=20, max_prefetch=100)


def work() -> None:
    """Run the receiver, as the worker's command does in each of its processes."""
    uvloop.install()
    asyncio.run(_work())


async def produce() -> None:
    """Send what the role asks for."""
    await broker.startup()
    await meter.send_jobs(job.kiq)
    await broker.shutdown()


if __name__ == "__main__":
    meter.main(work=work, produce=produce)
