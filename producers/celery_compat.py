"""Code that called the Celery task calls the pipeline in the same way.

    from producers.celery_compat import generate_custom_activities_task

    result = generate_custom_activities_task.delay(job_id, team_id, organization_id)
    result.get(timeout=60)["activities"]

It needs `PIPELINE_URL` (the pipeline's `BROKER_URL`, which `celery worker` takes for its own; without it `BROKER_URL`)
and `DATABASE_URL`, and no Celery. The job's ID is the task's ID. Each call opens its own connections, so it may be made
in any thread, in a forked child, and beside a running event loop. A process that dies in `delay` has sent the request
or has not; calling again with the same job sends the same event, which counts once.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn, TypeAlias
from uuid import UUID

from producers.celery_results import (
    FAILURE,
    PENDING,
    REVOKED,
    STARTED,
    SUCCESS,
    AsyncResult,
    TaskFailed,
    TaskRevokedError,
    apart,
    job_id_of,
    job_row,
    pipeline_url,
)
from producers.client import InvalidArgument, JobRequests, Request
from streams.jobs.events import JobId

__all__ = [
    "FAILURE",
    "PENDING",
    "REVOKED",
    "STARTED",
    "SUCCESS",
    "AsyncResult",
    "TaskFailed",
    "TaskRevokedError",
    "generate_custom_activities_task",
]

# How a message travels, which the pipeline decides by itself; the plan of the organization decides who goes first.
_WITHOUT_EFFECT: Final = frozenset(
    {
        *("priority", "queue", "routing_key", "exchange", "delivery_mode", "headers", "connection", "producer"),
        *("retry", "retry_policy", "serializer", "compression", "ignore_result", "shadow", "add_to_parent"),
        *("publisher", "reply_to", "correlation_id", "root_id", "parent_id", "origin", "argsrepr", "kwargsrepr"),
        *("content_type", "content_encoding", "mandatory", "immediate", "declare", "router", "route_name"),
    }
)
_NO_METHOD: Final = "call delay or apply_async (docs/from-celery.md)"
# The task has a method of the class's name.
_Result: TypeAlias = AsyncResult


class _Task:
    """Stands where the old task stood."""

    name: Final = "generate_custom_activities"

    @staticmethod
    def AsyncResult(task_id: str | UUID, **how: object) -> "_Result":  # noqa: N802 - Celery's name
        """Return the result of an earlier call."""
        return AsyncResult(task_id, **how)

    def __call__(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Refuse to do the work here and now."""
        raise InvalidArgument(f"{self.name}: the work is done by the pipeline alone; {_NO_METHOD}")

    def __getattr__(self, name: str) -> NoReturn:
        """Say of what else a task of Celery has that there is none."""
        raise AttributeError(f"{name}: the pipeline's task has none; {_NO_METHOD}")

    def delay(self, /, *args: object, **kwargs: object) -> "_Result":
        """Call the task: `delay(job_id, team_id, organization_id)`, and `requirements=` if the row lacks them."""
        return self.apply_async(args, kwargs)

    def s(self, /, *args: object, **kwargs: object) -> "_Signature":
        """Return a call for later, which may get more arguments before these."""
        return _Signature(args, kwargs)

    def si(self, /, *args: object, **kwargs: object) -> "_Signature":
        """Return a call for later, which gets no more arguments."""
        return _Signature(args, kwargs, immutable=True)

    def signature(
        self,
        args: Sequence[object] | None = None,
        kwargs: Mapping[str, object] | None = None,
        immutable: bool = False,  # noqa: FBT001, FBT002 - Celery's
        **options: object,
    ) -> "_Signature":
        """Return a call for later with options of `apply_async`."""
        _check(args, kwargs)
        return _Signature(tuple(args or ()), dict(kwargs or {}), options, immutable=immutable)

    subtask = signature

    def apply_async(
        self,
        args: Sequence[object] | None = None,
        kwargs: Mapping[str, object] | None = None,
        task_id: str | UUID | None = None,
        *,
        countdown: float | None = None,
        eta: datetime | str | None = None,
        **options: object,
    ) -> "_Result":
        """Request the job of the task's arguments. A repeat is the same job.

        Args:
            args: `job_id`, `team_id`, `organization_id`, and `requirements` if the job's row does not hold them.
            kwargs: the same by name.
            task_id: if given, the job's ID.
            countdown: begin in so many seconds; unless it is 0 it goes before `eta`.
            eta: begin then, a moment or its text by ISO 8601, in UTC unless it says otherwise.
            options: `priority`, `queue` and others of how a message travels have no effect.

        Raises:
            InvalidArgument: an argument is missing or cannot be used; nothing was sent.
            SubmitFailed: the broker did not confirm; call again with the same job.
        """
        if unknown := sorted({name for name, value in options.items() if _says_something(value)} - _WITHOUT_EFFECT):
            raise InvalidArgument(f"{unknown[0]}: the pipeline has no such option; leave it out (docs/from-celery.md)")
        _check(args, kwargs)
        called = _Called.read(*(args or ()), **(kwargs or {}))
        if task_id is not None and str(task_id).lower() != str(called.job_id):
            raise InvalidArgument("task_id: the job's ID is the task's ID here; leave it out, or give the job's")
        apart(_request(called, _begins(countdown, eta)))
        return AsyncResult(str(called.job_id))


@dataclass(frozen=True, slots=True)
class _Signature:
    """A call for later, which may be made several times."""

    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    options: Mapping[str, object] = field(default_factory=dict)
    immutable: bool = field(default=False, kw_only=True)

    def delay(self, /, *args: object, **kwargs: object) -> "_Result":
        """Make the call."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Sequence[object] | None = None, kwargs: Mapping[str, object] | None = None, **options: object
    ) -> "_Result":
        """Make the call; what is given here goes before what the signature holds. See the task's own."""
        _check(args, kwargs)
        more = self.clone(args, kwargs, **options)
        return generate_custom_activities_task.apply_async(more.args, more.kwargs, **more.options)  # type: ignore[arg-type] # whatever the caller gives is checked there

    def clone(
        self, args: Sequence[object] | None = None, kwargs: Mapping[str, object] | None = None, **options: object
    ) -> "_Signature":
        """Return this call with more arguments and options."""
        if self.immutable:
            args, kwargs = (), {}
        every = (*(args or ()), *self.args)
        return replace(self, args=every, kwargs={**self.kwargs, **(kwargs or {})}, options={**self.options, **options})

    def set(self, immutable: bool | None = None, **options: object) -> "_Signature":  # noqa: FBT001 - Celery's
        """Return this call with more options."""
        more = self.clone(None, None, **options)
        return more if immutable is None else replace(more, immutable=immutable)

    def __or__(self, _next: object) -> NoReturn:
        """Refuse a chain."""
        raise InvalidArgument("chain: no task follows a job here; follow it by webhook or by its events")

    __ror__ = __or__

    def __call__(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Refuse to do the work here and now."""
        generate_custom_activities_task()

    def __getattr__(self, name: str) -> NoReturn:
        """Say of what else a signature of Celery has that there is none."""
        raise AttributeError(f"{name}: a call of the pipeline's task has none; {_NO_METHOD}")


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
        given = arguments_by_name(names, args, kwargs, needed=names[:3])
        wish = given.get("requirements")
        return cls(
            job_id_of(given["job_id"]),
            str(given["team_id"]),
            str(given["organization_id"]),
            None if wish is None else str(wish),
        )


def arguments_by_name(
    names: Sequence[str], args: Sequence[object], kwargs: Mapping[str, object], *, needed: Sequence[str]
) -> Mapping[str, object]:
    """Return a call's arguments by their names.

    Raises:
        InvalidArgument: one is missing, unknown, given twice or no text.
    """
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    takes = f"the task takes {', '.join(names)}"
    for name in sorted(set(given) - set(names)):
        raise InvalidArgument(f"{name}: the task has no such argument; it takes {', '.join(names)}")
    if len(args) > len(names) or len(given) < len(args) + len(kwargs):
        raise InvalidArgument(f"arguments: one too many, or one given twice; {takes}")
    for name in needed:
        if given.get(name) is None:
            raise InvalidArgument(f"{name}: missing; {takes}")
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, str | int | UUID | None):
            raise InvalidArgument(f"{name}: must be text, and is {type(value).__name__}")
    return given


def _says_something(option: object) -> bool:
    """Return whether an option is given: Celery takes an empty list of callbacks for none."""
    return option is not None and option not in ([], (), {})


def _check(args: object, kwargs: object) -> None:
    """Pass if these can be a call's arguments. Raises InvalidArgument."""
    if not isinstance(args, list | tuple | None):
        raise InvalidArgument("args: must be a list or a tuple, such as (job_id, team_id, organization_id)")
    named = {} if kwargs is None else kwargs
    if not isinstance(named, Mapping) or not all(isinstance(name, str) for name in named):
        raise InvalidArgument('kwargs: must have names, such as {"job_id": job_id}')


def _begins(countdown: float | None, eta: datetime | str | None) -> datetime | None:
    begins = _moment(eta)
    if countdown:
        try:
            begins = datetime.now(UTC) + timedelta(seconds=countdown)
        except (TypeError, ValueError, OverflowError):
            message = "countdown: must be a number of seconds that ends within the calendar"
            raise InvalidArgument(message) from None
    return begins.replace(tzinfo=UTC) if begins is not None and begins.tzinfo is None else begins


def _moment(eta: object) -> datetime | None:
    if isinstance(eta, str):
        with suppress(ValueError):
            return datetime.fromisoformat(eta)
    if not isinstance(eta, datetime | None):
        raise InvalidArgument("eta: must be a datetime, such as datetime.now(UTC) + timedelta(hours=1)")
    return eta


async def _request(called: _Called, run_at: datetime | None) -> None:
    row = await job_row(called.job_id)
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
