"""The worker of the fault tests: notes each start, works, and has one effect for each event.

The effect is the kind that an application must have under at-least-once delivery: idempotent, by the event's name. What
the log counts as an effect is one that took place.
"""

import asyncio
import os
import random
import time
from pathlib import Path
from typing import Any

import faust
from redis.asyncio import BlockingConnectionPool, Redis

WORK_S = float(os.environ.get("CHAOS_WORK", "0.1"))
SPREAD = float(os.environ.get("CHAOS_SPREAD", "0"))  # work takes up to this part longer, at random
BLOCK_S = float(os.environ.get("CHAOS_BLOCK", "0"))
LOG = Path(os.environ.get("CHAOS_LOG", os.devnull))

app = faust.App(
    os.environ.get("CHAOS_GROUP", "chaos"),
    broker=os.environ.get("CHAOS_BROKER", "redis://127.0.0.1:6379/0"),
    topic_partitions=1,
    web_enabled=False,
    datadir=str(LOG.parent),
)
topic = app.topic("chaos", key_type=bytes, key_serializer="raw", value_type=bytes, value_serializer="raw")
# A few connections, as an application has: hundreds opened at the same moment hold up the event loop for half a second.
_pool = BlockingConnectionPool.from_url(
    os.environ.get("CHAOS_EFFECTS", "redis://127.0.0.1:6379/1"), max_connections=16, timeout=60
)
effects = Redis(connection_pool=_pool)


# The effect and its line in the log are one step. A worker killed between the two would leave an effect that nobody can
# see, and the checker would wait for it in vain.
EFFECT = "if redis.call('SADD', KEYS[1], ARGV[1]) == 1 then redis.call('RPUSH', KEYS[2], ARGV[2]) end"


def line(what: str, name: str) -> str:
    """A line of the log."""
    return f"{time.time():.3f} {os.getpid()} {what} {name}\n"


def note(what: str, name: str) -> None:
    """Append a line; one short write is atomic, so that many workers share the file."""
    with LOG.open("a") as log:
        log.write(line(what, name))


@app.agent(topic, concurrency=int(os.environ.get("CHAOS_CONCURRENCY", "10")))
async def work(stream: Any) -> None:
    """Work on an event; acknowledge when its effect is durable."""
    async for event in stream.noack().events():
        name = event.value.decode()
        note("start", name)
        if name.startswith("poison"):
            os.kill(os.getpid(), 9)
        if name.startswith("block") and await effects.hsetnx("blocked", name, "once"):
            time.sleep(BLOCK_S)  # noqa: ASYNC251 - an agent that blocks the event loop is the fault
        await asyncio.sleep(WORK_S * random.uniform(1, 1 + SPREAD))
        await effects.execute_command("EVAL", EFFECT, 2, "effects", "effect-log", name, line("effect", name))
        event.ack()
        note("done", name)


if __name__ == "__main__":
    app.main()
