"""Code that called the Celery task sees a job as the task's result.

Each look opens a connection of its own, so it may be made in any thread, in a forked child, and beside an event loop.
"""

import asyncio
import os
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar
from uuid import UUID

import aiosql

from infra.database_url import read_database_url
from infra.errors import InvalidSetting, TeamfitError
from infra.postgres import connect, reading_json
from producers.client import InvalidArgument, JobRequests
from streams.jobs.events import JobId

_queries: Any = aiosql.from_path(Path(__file__).with_suffix(".sql"), "asyncpg")

T = TypeVar("T")

PENDING: Final = "PENDING"
STARTED: Final = "STARTED"
SUCCESS: Final = "SUCCESS"
FAILURE: Final = "FAILURE"
REVOKED: Final = "REVOKED"
_STATES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("pending", "received"), PENDING),
    **dict.fromkeys(("processing", "started", "retry"), STARTED),
    **dict.fromkeys(("completed", "success"), SUCCESS),
    **dict.fromkeys(("failed", "failure"), FAILURE),
    **dict.fromkeys(("cancelled", "revoked"), REVOKED),
}
_READY: Final = frozenset({SUCCESS, FAILURE, REVOKED})

# How a result is waited for, which Postgres alone decides here.
_WAITED_ALIKE: Final = frozenset({"disable_sync_subtasks"})
# Where Celery looks results up.
_MADE_ALIKE: Final = frozenset({"app", "backend", "parent", "task_name"})
_POLL_S: Final = 0.5  # Celery's own default
_SHORTEST_POLL_S: Final = 0.01
_LONGEST_S: Final = 1e9  # beyond that the clock has no number for its end


class TaskFailed(TeamfitError):
    """The job failed. `get` raises it, and it is the `result` of a task in the state FAILURE.

    Attributes:
        code: the job's error code, e.g. ``quota_exceeded``; None of jobs of the Celery days.
    """

    def __init__(self, code: str | None, message: str) -> None:
        super().__init__(message)
        self.code = code


class TaskRevokedError(TeamfitError):
    """The job was cancelled. `get` raises it, and it is the `result` of a task in the state REVOKED."""


@dataclass(frozen=True, slots=True, init=False)
class AsyncResult:
    """A job, seen as the result of a task. Each attribute asks Postgres anew.

    Args:
        task_id: the job's ID, as text or a UUID.
        how: Celery's `app`, `backend` and others, which have no effect.

    Attributes:
        id: the job's ID, as text.
    """

    id: str

    def __init__(self, task_id: str | UUID, *_how: object, **how: object) -> None:
        if not isinstance(task_id, str | UUID):
            raise InvalidArgument(f"id: must be a job's UUID, and is {type(task_id).__name__}")
        if unknown := sorted(set(how) - _MADE_ALIKE):
            raise InvalidArgument(f"{unknown[0]}: a result has no such option; leave it out (docs/from-celery.md)")
        object.__setattr__(self, "id", str(task_id))

    def __getattr__(self, name: str) -> NoReturn:
        """Say of what else a result of Celery has that there is none."""
        raise AttributeError(f"{name}: a job's result has none; it has id, state, result and get (docs/from-celery.md)")

    def __str__(self) -> str:
        """Return the ID: code that logs or stores a result means that."""
        return self.id

    @property
    def task_id(self) -> str:
        """Return the ID, by Celery's other name for it."""
        return self.id

    @property
    def state(self) -> str:
        """Return PENDING (also of an unknown job), STARTED, SUCCESS, FAILURE or REVOKED."""
        return apart(_seen(self.id))[0]

    status = state

    @property
    def result(self) -> object:
        """Return what `get` would return or raise; None of a job that goes on."""
        return apart(_seen(self.id))[1]

    info = result

    @property
    def traceback(self) -> None:
        """Return None: where a job failed, the operators' failed events say."""

    @property
    def parent(self) -> None:
        """Return None: no task calls a job."""

    @property
    def children(self) -> list[NoReturn]:
        """Return none: a job calls no task."""
        return []

    def ready(self) -> bool:
        """Return whether the job has ended, in any way."""
        return self.state in _READY

    def successful(self) -> bool:
        """Return whether the job has its activities."""
        return self.state == SUCCESS

    def failed(self) -> bool:
        """Return whether the job has failed."""
        return self.state == FAILURE

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,  # noqa: FBT001, FBT002 - Celery's
        interval: float = _POLL_S,
        no_ack: bool = True,  # noqa: FBT001, FBT002 - the same
        follow_parents: bool = True,  # noqa: FBT001, FBT002 - the same
        **how: object,
    ) -> object:
        """Wait for the job's end, and return its result.

        Args:
            timeout: how many seconds to wait; None: for ever.
            propagate: raise the error of a job that failed or was cancelled; otherwise return it.
            interval: seconds between two looks.
            no_ack: no effect.
            follow_parents: the same.
            how: `disable_sync_subtasks` has none; others that are not None are refused.

        Raises:
            InvalidArgument: an argument cannot be used.
            TimeoutError: the job has not ended in that time. It goes on.
            TaskFailed: it failed.
            TaskRevokedError: it was cancelled.
        """
        del no_ack, follow_parents
        if unknown := sorted({name for name, value in how.items() if value is not None} - _WAITED_ALIKE):
            raise InvalidArgument(f"{unknown[0]}: a result is waited for without it here; leave it out")
        pause = max(_SHORTEST_POLL_S, _seconds("interval", interval))
        deadline = None if timeout is None else time.monotonic() + _seconds("timeout", timeout)
        while True:
            state, result = apart(_seen(self.id))
            if state in _READY:
                break
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"job {self.id}: {state} after {timeout} s; it goes on, so ask again")
            time.sleep(min(pause, left))
        if propagate and isinstance(result, TeamfitError):
            raise result
        return result

    wait = get

    def maybe_throw(self, propagate: bool = True, callback: None = None) -> object:  # noqa: FBT001, FBT002 - Celery's
        """Return the result as it is; raise a failed or cancelled job's error.

        Args:
            propagate: return the error if false.
            callback: refused unless it is None.

        Raises:
            TaskFailed: it failed.
            TaskRevokedError: it was cancelled.
        """
        if callback is not None:
            raise InvalidArgument("callback: nothing is called here; look at what is returned")
        result = self.result
        if propagate and isinstance(result, TeamfitError):
            raise result
        return result

    maybe_reraise = maybe_throw

    def forget(self) -> None:
        """Do nothing: a job's end is kept as the operators' retention has it."""

    def revoke(self, *_how: object, **_how_else: object) -> None:
        """Ask for the job to be cancelled, running or not; `state` tells whether it was.

        Raises:
            InvalidArgument: there is no such job.
            SubmitFailed: the broker did not confirm; revoke again.
        """
        apart(_revoke(self.id))


async def _revoke(task_id: str) -> None:
    job_id = job_id_of(task_id)
    row = await job_row(job_id)
    if row is None or row["organization_id"] is None:
        raise InvalidArgument(f"id: there is no job {job_id} of any organization, as far as anybody has heard yet")
    async with JobRequests.connect(pipeline_url(), source="celery") as requests:
        await requests.cancel(job_id, organization_id=row["organization_id"])


async def _seen(task_id: str) -> tuple[str, object]:
    """Return the state and the result of a job."""
    job_id = job_id_of(task_id)
    row = await job_row(job_id)
    if row is None:
        return PENDING, None
    # An unknown word is of a job that goes on, as far as anybody can tell.
    state = _STATES.get(row["status"].lower(), STARTED)
    message = row["error_message"] or f"job {job_id} has ended as {row['status']}"
    match state:
        case "SUCCESS":
            return state, {"job_id": str(job_id), "status": "completed", "activities": await _activities(job_id)}
        case "FAILURE":
            return state, TaskFailed(row["error_code"], message)
        case "REVOKED":
            return state, TaskRevokedError(message)
        case _:
            return state, None


async def job_row(job_id: JobId) -> Any:  # noqa: ANN401 - a row of Postgres
    """Return the row of a job, or None."""
    connection = await connect(read_database_url(_needed("DATABASE_URL")))
    try:
        return await _queries.job(connection, job_id=job_id)
    finally:
        await connection.close()


async def _activities(job_id: JobId) -> list[dict[str, Any]]:
    connection = await connect(read_database_url(_needed("DATABASE_URL")))
    try:
        await reading_json(connection)
        return [dict(row) async for row in _queries.activities(connection, job_id=job_id)]
    finally:
        await connection.close()


def _seconds(name: str, value: object) -> float:
    """Return how many seconds an argument means. Infinity is as long as a wait can be."""
    if isinstance(value, int | float) and value == value:  # noqa: PLR0124 - what is not equal to itself is no number
        return min(float(value), _LONGEST_S)
    raise InvalidArgument(f"{name}: must be a number of seconds")


def job_id_of(value: object) -> JobId:
    """Read a job's ID. Raises InvalidArgument."""
    try:
        return JobId(UUID(str(value)))
    except ValueError:
        raise InvalidArgument("job_id: must be a UUID, the job's own") from None


def pipeline_url() -> str:
    """Return the URL of the pipeline's broker.

    Raises:
        InvalidSetting: no variable names it.
    """
    return os.environ.get("PIPELINE_URL") or _needed("BROKER_URL")


def _needed(variable: str) -> str:
    if not (value := os.environ.get(variable)):
        raise InvalidSetting(variable, "is not set; the Celery callers' module needs the pipeline's")
    return value


def apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also beside an event loop of the caller's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
