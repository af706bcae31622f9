"""Building events about jobs: the one place that sets their ID, run, time and trace.

An event's ID follows from its job, run and kind, so that a stage which repeats itself after a crash publishes the same
event again and every reader can tell. The same arguments give the same bytes.
"""

from datetime import datetime
from typing import TypeVar, cast

from pydantic import BaseModel

from streams.delivery.traces import NO_TRACE, Trace
from streams.jobs.events import (
    DEFAULT_SOURCE,
    JobEvent,
    JobId,
    JobProgressed,
    JobRequested,
    Progressed,
    Requested,
    fact_id,
    kind_of,
)

F = TypeVar("F", bound=JobEvent)


def fact(
    kind: type[F], job_id: JobId, run: int, data: BaseModel, *, at: datetime, trace: Trace = NO_TRACE, **more: object
) -> F:
    """Build the one event of this kind in a run.

    Args:
        kind: its model.
        job_id: the job.
        run: its run.
        data: what it says, as the kind has it.
        at: when it happened.
        trace: that led to it.
        more: attributes that only this kind has.

    Raises:
        pydantic.ValidationError: a value is out of its bounds.
    """
    name = str(kind.model_fields["type"].default).split(".")[2]
    built = kind.model_validate(
        {
            "id": fact_id(job_id, run, name),
            "subject": job_id,
            "time": at,
            "run": run,
            "traceparent": trace.traceparent,
            "tracestate": trace.tracestate,
            "data": data,
            **more,
        }
    )
    return cast("F", built)


def fact_after(event: JobEvent, kind: type[F], data: BaseModel, *, at: datetime) -> F:
    """Build the fact that follows an event, for the same job, run and trace."""
    return fact(kind, event.job_id, event.run, data, at=at, trace=Trace(event.traceparent, event.tracestate))


def own_fact_id(event: JobEvent) -> str:
    """Return the ID that a stage gives the fact that an event is.

    There is one of each kind in a run, and of `progressed` one for each activity that an attempt has written.
    """
    kind = kind_of(event)
    if isinstance(event, JobProgressed) and event.data.attempt is not None:
        kind = f"{kind}:{event.data.attempt}:{event.data.number}"
    return fact_id(event.job_id, event.run, kind)


def activity_written(event: JobEvent, attempt: int, number: int, title: str, *, at: datetime) -> JobProgressed:
    """Build the fact that an attempt's LLM has written one of the activities."""
    data = Progressed(
        organization_id=event.data.organization_id, step="activity", attempt=attempt, number=number, title=title
    )
    told = fact_after(event, JobProgressed, data, at=at)
    return told.model_copy(update={"id": own_fact_id(told)})


def job_requested(
    *,
    job_id: JobId,
    organization_id: str,
    team_id: str,
    requirements: str,
    at: datetime,
    run: int = 1,
    source: str = DEFAULT_SOURCE,
    run_at: datetime | None = None,
    idempotency_key: str | None = None,
    trace: Trace = NO_TRACE,
) -> JobRequested:
    """Build the request event of a run.

    Raises:
        pydantic.ValidationError: a value is out of its bounds.
    """
    data = Requested(organization_id=organization_id, team_id=team_id, requirements=requirements, run_at=run_at)
    return fact(JobRequested, job_id, run, data, at=at, trace=trace, source=source, idempotencykey=idempotency_key)


def next_run(request: JobRequested, run: int, *, at: datetime | None = None) -> JobRequested:
    """Return the request of another run, with the same content and the given changes."""
    again = {"id": fact_id(request.job_id, run, "requested"), "run": run}
    return request.model_copy(update=again if at is None else {**again, "time": at})
