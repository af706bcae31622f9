"""Code that called the Celery task calls the pipeline in the same way.

    from producers.celery_compat import generate_custom_activities_task

    result = generate_custom_activities_task.delay(job_id, team_id, organization_id)
    result.get(timeout=60)["activities"]

It needs `PIPELINE_URL` (the pipeline's `BROKER_URL`, which `celery worker` takes for its own; without it `BROKER_URL`)
and `DATABASE_URL`, and no Celery. The job's ID is the task's ID. Each call opens its own connections, so it may be made
in any thread, in a forked child, and beside a running event loop. A process that dies in `delay` has sent the request
or has not; calling again with the same job sends the same event, which counts once.
"""

import asyncio
import os
import time
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar
from uuid import UUID

import aiosql

from infra.database_url import read_database_url
from infra.errors import InvalidSetting, TeamfitError
from infra.postgres import connect, reading_json
from producers.client import InvalidArgument, JobRequests, Request
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

# How a message travels, which the pipeline decides by itself; the plan of the organization decides who goes first.
_WITHOUT_EFFECT: Final = frozenset(
    {
        *("priority", "queue", "routing_key", "exchange", "delivery_mode", "headers", "connection", "producer"),
        *("retry", "retry_policy", "serializer", "compression", "ignore_result", "shadow", "add_to_parent"),
    }
)
_POLL_S: Final = 0.5  # Celery's own default


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


@dataclass(frozen=True, slots=True)
class AsyncResult:
    """A job, seen as the result of a task. Each attribute asks Postgres anew.

    Attributes:
        id: the job's ID, as text.
    """

    id: str

    @property
    def state(self) -> str:
        """Return PENDING (also of an unknown job), STARTED, SUCCESS, FAILURE or REVOKED."""
        return _apart(_seen(self.id))[0]

    status = state

    @property
    def result(self) -> object:
        """Return what `get` would return or raise; None of a job that goes on."""
        return _apart(_seen(self.id))[1]

    def ready(self) -> bool:
        """Return whether the job has ended, in any way."""
        return self.state in _READY

    def successful(self) -> bool:
        """Return whether the job has its activities."""
        return self.state == SUCCESS

    def failed(self) -> bool:
        """Return whether the job has failed."""
        return self.state == FAILURE

    def get(self, timeout: float | None = None, *, propagate: bool = True, interval: float = _POLL_S) -> object:
        """Wait for the job's end, and return its result.

        Args:
            timeout: how many seconds to wait; None: for ever.
            propagate: raise the error of a job that failed or was cancelled; otherwise return it.
            interval: seconds between two looks.

        Raises:
            TimeoutError: the job has not ended in that time. It goes on.
            TaskFailed: it failed.
            TaskRevokedError: it was cancelled.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            state, result = _apart(_seen(self.id))
            if state in _READY:
                break
            left = interval if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"job {self.id}: {state} after {timeout} s; it goes on, so ask again")
            time.sleep(min(interval, left))
        if propagate and isinstance(result, TeamfitError):
            raise result
        return result

    def revoke(self, **_how: object) -> None:
        """Ask for the job to be cancelled, running or not; `state` tells whether it was.

        Raises:
            InvalidArgument: there is no such job.
            SubmitFailed: the broker did not confirm; revoke again.
        """
        _apart(_revoke(self.id))


# The task has a method of the class's name.
_Result: TypeAlias = AsyncResult


class _Task:
    """Stands where the old task stood."""

    name: Final = "generate_custom_activities"

    @staticmethod
    def AsyncResult(task_id: str) -> "_Result":  # noqa: N802 - Celery's name
        """Return the result of an earlier call."""
        return AsyncResult(task_id)

    def delay(self, *args: object, **kwargs: object) -> "_Result":
        """Call the task: `delay(job_id, team_id, organization_id)`, and `requirements=` if the row lacks them."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
        *,
        countdown: float | None = None,
        eta: datetime | None = None,
        task_id: str | None = None,
        **options: object,
    ) -> "_Result":
        """Request the job of the task's arguments. A repeat is the same job.

        Args:
            args: `job_id`, `team_id`, `organization_id`, and `requirements` if the job's row does not hold them.
            kwargs: the same by name.
            countdown: begin in so many seconds; goes before `eta`.
            eta: begin then, in UTC unless it says otherwise.
            task_id: if given, the job's ID.
            options: `priority`, `queue` and others of how a message travels have no effect.

        Raises:
            InvalidArgument: an argument is missing or cannot be used; nothing was sent.
            SubmitFailed: the broker did not confirm; call again with the same job.
        """
        if unknown := sorted(set(options) - _WITHOUT_EFFECT):
            raise InvalidArgument(f"{unknown[0]}: the pipeline has no such option; leave it out (docs/from-celery.md)")
        called = _Called.read(*args, **(kwargs or {}))
        if task_id is not None and task_id != str(called.job_id):
            raise InvalidArgument("task_id: the job's ID is the task's ID here; leave it out, or give the job's")
        _apart(_request(called, _begins(countdown, eta)))
        return AsyncResult(str(called.job_id))


generate_custom_activities_task: Final = _Task()
"""The old task, for its callers."""


@dataclass(frozen=True, slots=True)
class _Called:
    job_id: JobId
    team_id: str
    organization_id: str
    requirements: str | None

    @classmethod
    def read(cls, *args: object, **kwargs: object) -> "_Called":
        names = ("job_id", "team_id", "organization_id", "requirements")
        given = dict(zip(names, args, strict=False)) | kwargs
        for name in sorted(set(given) - set(names)):
            raise InvalidArgument(f"{name}: the task has no such argument; it takes {', '.join(names)}")
        if len(args) > len(names) or len(given) < len(args) + len(kwargs):
            raise InvalidArgument(f"arguments: one too many, or one given twice; the task takes {', '.join(names)}")
        for name in names[:3]:
            if given.get(name) is None:
                raise InvalidArgument(f"{name}: missing; the task takes {', '.join(names)}")
        wish = given.get("requirements")
        return cls(
            _job_id(given["job_id"]),
            str(given["team_id"]),
            str(given["organization_id"]),
            None if wish is None else str(wish),
        )


def _job_id(value: object) -> JobId:
    try:
        return JobId(UUID(str(value)))
    except ValueError:
        raise InvalidArgument("job_id: must be a UUID, the job's own") from None


def _begins(countdown: float | None, eta: datetime | None) -> datetime | None:
    try:
        begins = eta if countdown is None else datetime.now(UTC) + timedelta(seconds=countdown)
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgument("countdown: must be a number of seconds that ends within the calendar") from None
    if not isinstance(begins, datetime | None):
        raise InvalidArgument("eta: must be a datetime, such as datetime.now(UTC) + timedelta(hours=1)")
    return begins.replace(tzinfo=UTC) if begins is not None and begins.tzinfo is None else begins


async def _request(called: _Called, run_at: datetime | None) -> None:
    row = await _row(called.job_id)
    asked = Request(
        job_id=called.job_id,
        organization_id=called.organization_id,
        team_id=called.team_id,
        requirements=_agreed(called, row),
        run_at=run_at,
        # The read model keeps the row's moment, and has to be what its events give.
        requested_at=row["created_at"] if row is not None else None,
    )
    async with JobRequests.connect(pipeline_url(), source="celery") as requests:
        await requests.submit_many([asked])


def _agreed(called: _Called, row: Any) -> str:  # noqa: ANN401 - a row of Postgres
    """Return the requirements, once it is sure that the row is of the same job: else the job would never reach it."""
    for name in ("organization_id", "team_id", "requirements"):
        kept, given = (row or {}).get(name), getattr(called, name)
        if kept is not None and given is not None and kept.strip() != given.strip():
            raise InvalidArgument(
                f"{name}: job {called.job_id} has another in customization_jobs; give each job one ID"
            )
    requirements = called.requirements or (row or {}).get("requirements")
    if requirements is None:
        raise InvalidArgument(
            f"job_id: job {called.job_id} has no row in customization_jobs that holds its requirements; commit "
            "the row before the call, or give `requirements`"
        )
    return str(requirements)


async def _revoke(task_id: str) -> None:
    job_id = _job_id(task_id)
    row = await _row(job_id)
    if row is None or row["organization_id"] is None:
        raise InvalidArgument(f"id: there is no job {job_id} of any organization, as far as anybody has heard yet")
    async with JobRequests.connect(pipeline_url(), source="celery") as requests:
        await requests.cancel(job_id, organization_id=row["organization_id"])


async def _seen(task_id: str) -> tuple[str, object]:
    """Return the state and the result of a job."""
    job_id = _job_id(task_id)
    row = await _row(job_id)
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


async def _row(job_id: JobId) -> Any:  # noqa: ANN401 - a row of Postgres
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


def _apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from code that is not asynchronous, whether or not an event loop runs around it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
