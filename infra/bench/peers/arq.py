"""arq, whose queue is a sorted set that is polled, on uvloop.

A poll every 10 ms (the default is 500), 20 jobs at a time (more were slower), 500 read at once, results not kept.
Sending puts 100 together on pooled connections; arq has no bulk sending.
"""

import asyncio
import logging
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, func

from infra.bench.peers import meter

logging.disable(logging.CRITICAL)


async def job(_: dict[str, Any], argument: str) -> None:
    """Count the job."""
    meter.tick(argument)


def work() -> None:
    """Run the worker."""
    uvloop.install()
    asyncio.set_event_loop(asyncio.new_event_loop())
    Worker(
        [func(job, name="job", keep_result=0)],
        redis_settings=RedisSettings.from_dsn(meter.URL),
        max_jobs=20,
        queue_read_limit=500,
        poll_delay=0.01,
        log_results=False,
    ).run()


async def produce() -> None:
    """Send what the role asks for."""
    pool = await create_pool(RedisSettings.from_dsn(meter.URL))

    async def send(argument: str) -> None:
        await pool.enqueue_job("job", argument)

    await meter.send_jobs(send)
    await pool.aclose()


if __name__ == "__main__":
    meter.main(work=work, produce=produce)
