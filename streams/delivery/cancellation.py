"""A worker that stops is told from a try that fails."""

import asyncio


def stay_cancelled(error: Exception) -> None:
    """Raise CancelledError if the worker is stopping, since the stop may have caused the error.

    A driver that is cancelled in the middle of a statement may raise an error of its own instead. That would be taken
    for an outage, or for the job's failure, and would keep the agent from stopping.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error
