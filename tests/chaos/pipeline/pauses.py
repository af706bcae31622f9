"""A stage that an operator pauses, and whose workers die meanwhile, as a fault."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from infra.operations.controls import Wish, set_control, unset_control
from infra.postgres import Database
from streams.jobs.stages import GENERATION, PROJECTION, QUOTA
from tests.chaos.pipeline.system import System

_STAGES = (GENERATION, QUOTA, PROJECTION)


@asynccontextmanager
async def paused_and_killed(system: System, turn: int) -> AsyncIterator[None]:
    """Pause a stage, `kill -9` both of its workers, start them while it is paused, and resume it. Stages take turns."""
    stage = _STAGES[turn % len(_STAGES)]
    database = Database(system.grounds.database_url, size=1)
    try:
        await set_control(database, Wish("pause", stage, reason="a fault"))
        for part in system.parts(stage):
            await asyncio.to_thread(system.kill, part)
        for part in system.parts(stage):
            await asyncio.to_thread(system.start, part)
        yield
    finally:
        await unset_control(database, Wish("pause", stage))
        await database.close()
