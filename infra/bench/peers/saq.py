"""saq on Redis, on uvloop.

20 jobs at a time (100 were slower), up to 100 operations of the sender at once; results not kept (`ttl=-1`), no timeout
to watch. Sending puts 100 together; saq has no bulk sending.
"""

import asyncio
import logging
from typing import Any

import uvloop
from saq import Queue, Worker

from infra.bench.peers import meter

logging.disable(logging.CRITICAL)
queue = Queue.from_url(meter.URL, max_concurrent_ops=100)


async def job(_: dict[str, Any], *, argument: str) -> None:
    """Count the job."""
    meter.tick(argument)


async def _work() -> None:
    await Worker(queue, functions=[("job", job)], concurrency=20).start()


def work() -> None:
    """Run the worker."""
    uvloop.install()
    asyncio.run(_work())


async def send(argument: str) -> None:
    """Send one job."""
    await queue.enqueue("job", argument=argument, ttl=-1, timeout=0)


async def produce() -> None:
    """Send what the role asks for."""
    await queue.connect()
    await meter.send_jobs(send)
    await queue.disconnect()


if __name__ == "__main__":
    meter.main(work=work, produce=produce)
