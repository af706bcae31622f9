"""Celery, its Redis broker.

One process without a pool (`solo`) beats its forked and threaded pools for jobs that do nothing; a large prefetch, no
events, gossip or heartbeats, early acknowledgement as by default. Sending reuses one producer.
"""

import logging
from typing import Any

from celery import Celery

from infra.bench.peers import meter

app = Celery("bench", broker=meter.URL)
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=500,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)
logging.disable(logging.CRITICAL)


@app.task
def job(argument: str) -> None:
    """Count the job."""
    meter.tick(argument)


def work() -> None:
    """Run the worker in this process."""
    options = ["--pool", "solo", "--loglevel", "CRITICAL"]
    app.worker_main(["worker", *options, "--without-gossip", "--without-mingle", "--without-heartbeat"])


async def produce() -> None:
    """Send what the role asks for. Celery has no asynchronous and no bulk sending."""
    with app.producer_pool.acquire(block=True) as producer:

        async def send(argument: str) -> Any:  # noqa: ANN401 - Celery has no types
            return job.apply_async((argument,), producer=producer)

        await meter.send_jobs(send)


if __name__ == "__main__":
    meter.main(work=work, produce=produce)
