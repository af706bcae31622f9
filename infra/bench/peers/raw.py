"""The raw loop of redis-py is the denominator. It reads 500 entries, acknowledges them, and does nothing else.

Variants: `pipeline` acknowledges entry by entry in one pipeline; `variadic` all of them in one command.
"""

from collections.abc import Sequence
from typing import Any

from redis import Redis

from infra.bench.peers import meter

_READ = 500

client = Redis.from_url(meter.URL)


def work() -> None:
    """Read and acknowledge for ever."""
    client.xgroup_create("raw", "bench", "0", mkstream=True)
    while True:
        reply: Any = client.xreadgroup("bench", "raw", {"raw": ">"}, count=_READ, block=1000)
        for _, entries in reply:
            for _, fields in entries:
                meter.tick(fields[b"event"])
            if meter.VARIANT == "variadic":
                client.xack("raw", "bench", *[entry_id for entry_id, _ in entries])
            else:
                pipeline = client.pipeline(transaction=False)
                for entry_id, _ in entries:
                    pipeline.xack("raw", "bench", entry_id)
                pipeline.execute()


async def send(job: str) -> None:
    """Write one entry."""
    client.xadd("raw", {"event": job})


async def send_all(jobs: Sequence[str]) -> None:
    """Write in pipelines."""
    for start in range(0, len(jobs), _READ):
        pipeline = client.pipeline(transaction=False)
        for job in jobs[start : start + _READ]:
            pipeline.xadd("raw", {"event": job})
        pipeline.execute()


async def produce() -> None:
    """Send what the role asks for."""
    await meter.send_jobs(send, send_all)


if __name__ == "__main__":
    meter.main(work=work, produce=produce)
