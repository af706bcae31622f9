"""docket (pydocket), on uvloop.

50 tasks at a time (its pool has 100 connections), 500 messages a read, no state kept after a task (`execution_ttl=0`),
checks every 10 ms instead of 250. Sending puts 100 together; docket has no bulk sending.
"""

import asyncio
import logging
from datetime import timedelta

import uvloop
from docket import Docket, Worker

from infra.bench.peers import meter

logging.disable(logging.CRITICAL)
_OFTEN = timedelta(milliseconds=10)


async def job(argument: str) -> None:
    """Count the job."""
    meter.tick(argument)


def _docket() -> Docket:
    return Docket(name="bench", url=meter.URL, execution_ttl=timedelta(0))


async def _work() -> None:
    async with _docket() as docket:
        docket.register(job)
        async with Worker(
            docket, concurrency=50, message_batch=500, minimum_check_interval=_OFTEN, schedule_automatic_tasks=False
        ) as worker:
            await worker.run_forever()


def work() -> None:
    """Run the worker."""
    uvloop.install()
    asyncio.run(_work())


async def produce() -> None:
    """Send what the role asks for."""
    async with _docket() as docket:

        async def send(argument: str) -> None:
            await docket.add(job)(argument)

        await meter.send_jobs(send)


if __name__ == "__main__":
    meter.main(work=work, produce=produce)
