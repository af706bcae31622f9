"""A worker that dies before its n-th Redis command, or before the first of a name.

The hook is here, around redis-py, and not in the transport. A reply that was on its way is lost with the process, so
each crash falls between two commands. What the worker's own effects cost is not counted.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import faust
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

CRASH_BEFORE = os.environ.get("CHAOS_CRASH_BEFORE", "")  # a number, or a command's name; nothing: never
# Once for each event, and counted in the same step: a crash cannot fall in between.
EFFECT = "if redis.call('SADD', KEYS[1], ARGV[1]) == 1 then redis.call('INCR', KEYS[2]) end"
BROKER = os.environ.get("CHAOS_BROKER", "redis://127.0.0.1:6379/0")

FOLDER = Path(os.environ.get("CHAOS_FOLDER", os.devnull))

app = faust.App("chaos", broker=BROKER, topic_partitions=1, web_enabled=False, datadir=str(FOLDER))
raw: dict[str, Any] = {"key_type": bytes, "key_serializer": "raw", "value_type": bytes, "value_serializer": "raw"}
topic = app.topic("chaos", **raw)
forwarded = app.topic("forwarded", **raw)
effects = Redis.from_url(BROKER.split("?", maxsplit=1)[0], client_name="effects")


class Crash:
    """Counts the transport's commands, on whichever connection they are sent."""

    def __init__(self) -> None:
        self.commands = 0
        self._send: Callable[..., Awaitable[None]] = AbstractConnection.send_command

    def install(self) -> None:
        """Stand before every command of every connection, but the effects' and those that open a connection."""
        crash = self

        async def send_command(connection: Any, *args: Any, **options: Any) -> None:
            if connection.client_name != "effects" and args[0] not in {"CLIENT", "SELECT"}:
                crash.commands += 1
                if CRASH_BEFORE in {str(crash.commands), args[0]}:
                    with (FOLDER / "crashes").open("a") as crashes:
                        crashes.write(f"{args[0]}\n")
                    os._exit(9)
            await crash._send(connection, *args, **options)

        AbstractConnection.send_command = send_command  # type: ignore[method-assign, assignment]


@app.agent(topic, concurrency=4)
async def work(stream: Any) -> None:
    """Pass the event on, have the effect, acknowledge."""
    async for event in stream.noack().events():
        name = event.value
        await effects.rpush("starts", name)
        await asyncio.sleep(0.4)  # longer than a renewal
        await (await forwarded.send(value=name))
        await effects.execute_command("EVAL", EFFECT, 2, "effects", "effects-total", name)
        event.ack()


if __name__ == "__main__":
    if CRASH_BEFORE:
        Crash().install()
    app.main()
