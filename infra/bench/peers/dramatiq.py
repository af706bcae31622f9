"""dramatiq on Redis.

A prefetch of 500 instead of twice the threads, and one thread: more only contend for the interpreter when jobs do
nothing. No middleware but what acknowledging needs. It has no bulk sending.
"""

import logging
import os
import threading

os.environ["dramatiq_queue_prefetch"] = "500"  # noqa: SIM112 - dramatiq's own spelling, read when it is imported

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from infra.bench.peers import meter

logging.disable(logging.CRITICAL)
broker = RedisBroker(url=meter.URL, middleware=[])
dramatiq.set_broker(broker)


@dramatiq.actor
def job(argument: str) -> None:
    """Count the job."""
    meter.tick(argument)


def work() -> None:
    """Run the worker's threads in this process. The command does so in each of its processes."""
    # An idle queue is asked again after at most `worker_timeout` ms.
    dramatiq.Worker(broker, worker_threads=1, worker_timeout=10).start()
    threading.Event().wait()


async def send(argument: str) -> None:
    """Send one message."""
    job.send(argument)


async def produce() -> None:
    """Send what the role asks for."""
    await meter.send_jobs(send)


if __name__ == "__main__":
    meter.main(work=work, produce=produce)
