"""A worker of two topics, whose agents are killed by some events and take a while for the others."""

import asyncio
import os
from typing import Any

import faust
from redis.asyncio import Redis

BROKER = os.environ.get("POISON_BROKER", "redis://127.0.0.1:6379/0")

app = faust.App("poison", broker=BROKER, web_enabled=False, datadir=os.environ.get("POISON_FOLDER", os.devnull))
effects = Redis.from_url(BROKER.split("?", maxsplit=1)[0])


async def work(stream: Any) -> None:
    """Die of poison; otherwise work, have the effect, acknowledge."""
    async for event in stream.noack().events():
        name = event.value
        await effects.rpush("starts", name)
        # Whoever is unlucky is killed by something else: the worker dies once, and it is no fault of the event.
        if name.startswith(b"poison") or (name == b"unlucky" and await effects.incr("killed") == 1):
            os.kill(os.getpid(), 9)
        await asyncio.sleep(0.5)
        await effects.sadd("done", name)
        event.ack()


for name in ("a", "b"):
    topic = app.topic(name, key_type=bytes, key_serializer="raw", value_type=bytes, value_serializer="raw")
    app.agent(topic, name=f"work on {name}", concurrency=4)(work)


if __name__ == "__main__":
    app.main()
