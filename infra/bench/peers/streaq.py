"""streaq, whose tasks are streams and keys beside them, on uvloop.

Results off (`ttl=0`), 32 tasks at a time (more were slower) and 500 prefetched. Sending uses its pipeline for many
tasks, a thousand together.
"""

import logging
from collections.abc import Sequence

from streaq import Worker

from infra.bench.peers import meter

logging.disable(logging.CRITICAL)
worker = Worker(redis_url=meter.URL, concurrency=32, prefetch=500, anyio_kwargs={"use_uvloop": True})


@worker.task(ttl=0, silent=True)
async def job(argument: str) -> None:
    """Count the job."""
    meter.tick(argument)


async def send_all(arguments: Sequence[str]) -> None:
    """Send in pipelines."""
    for start in range(0, len(arguments), 1000):
        await worker.enqueue_many([job.enqueue(argument) for argument in arguments[start : start + 1000]])


async def send(argument: str) -> None:
    """Send one task."""
    await job.enqueue(argument)


async def produce() -> None:
    """Send what the role asks for."""
    async with worker:
        await meter.send_jobs(send, send_all)


if __name__ == "__main__":
    meter.main(work=worker.run_sync, produce=produce)
