"""Total loss of what Redis holds, as a fault."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from tests.chaos.pipeline.system import System
from tests.waiting import wait_for

# More than the two that are handed to workers which were waiting for them when they were stopped.
_FAIL = 5


@asynccontextmanager
async def flushed(system: System, _turn: int) -> AsyncIterator[None]:
    """Lose everything, whatever is under way."""
    async with Redis.from_url(system.grounds.valkey.url) as redis:
        await redis.flushall()
    yield


@asynccontextmanager
async def letters_flushed(system: System, _turn: int) -> AsyncIterator[None]:
    """Lose everything just when jobs have failed, and nobody has read their dead letters."""
    stopped = [system.pid(part) for part in system.parts("failures")]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        await system.llm(mode="refusal", count=_FAIL)
        async with Redis.from_url(system.grounds.valkey.url) as redis:

            async def told() -> bool:
                return int(await redis.xlen("dead-letters")) >= _FAIL

            # The machine may be busy with other fleets.
            await wait_for(told, deadline_s=60, what="the dead letters")
            await redis.flushall()
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    yield
