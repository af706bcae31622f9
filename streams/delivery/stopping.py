"""A stage that stops ends its waits. Its stop is told from a try that fails."""

import asyncio
from collections.abc import Awaitable


class Waits:
    """The waits of one stage."""

    def __init__(self) -> None:
        self._stopping = False
        self._under_way: set[asyncio.Timeout] = set()

    async def has_come(self, what: Awaitable[object]) -> bool:
        """Return True when this has come, or False as soon as the stage stops."""
        wait = asyncio.timeout(0 if self._stopping else None)
        self._under_way.add(wait)
        try:
            async with wait:
                await what
        except TimeoutError:
            return False
        finally:
            self._under_way.discard(wait)
        return True

    def stop(self) -> None:
        """End all waits, and each that begins later."""
        self._stopping = True
        for wait in self._under_way:
            wait.reschedule(asyncio.get_running_loop().time())


def stay_cancelled(error: Exception) -> None:
    """Raise CancelledError if the worker is stopping, since the stop may have caused the error.

    A driver that is cancelled in the middle of a statement may raise an error of its own instead. That would be taken
    for an outage, or for the job's failure, and would keep the agent from stopping.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error
