"""Plain functions choose the event that restarts a run that stands still. They read only what Postgres knows of it.

| the run | is sent | and then |
| --- | --- | --- |
| undecided, with a reservation or without | JobRequested, to quota | quota decides, or repeats its JobAccepted |
| rejected | JobRequested, to quota | quota repeats its JobRejected |
| failed, cancelled | the fact that was kept with the outcome | projection and quota fold and settle |
| completed | JobCompleted, made of the attempt that was saved | the same; nothing is generated or paid again |
| undecided, and a dead letter | nothing | it fails as `dead_lettered` |
| undecided, and its request is unknown | nothing | it fails as `expired`, much later |

Where the archive misses the run's JobRequested, it is sent to all groups, whatever else is. JobAccepted is never made
here: quota makes it from the request and its ledger, byte for byte as the first time, and there is one place that knows
how. Every event keeps its ID, so readers that know it already change nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import orjson

from streams.delivery.deliveries import FOR_GROUP, Record
from streams.delivery.traces import NO_TRACE, Trace
from streams.jobs.completion import Usage, job_completed
from streams.jobs.events import Failed, JobFailed, JobId, JobRequested
from streams.jobs.facts import fact, next_run
from streams.jobs.outcomes import RunOutcome
from streams.jobs.stages import QUOTA
from streams.jobs.topics import JOB_EVENTS, JOB_REQUESTS, record


@dataclass(frozen=True, slots=True)
class Saved:
    """The attempt that completed a run."""

    usage: Usage
    at: datetime


@dataclass(frozen=True, slots=True)
class StillRun:
    """A run that stands still.

    Attributes:
        request: the event that asked for it, or None if neither the archive nor the intake has it.
        in_archive: whether the archive has it.
        fact: what was kept with the outcome.
        dead_lettered: whether the event that it waited for is an open dead letter.
        moved_at: when the run last moved.
    """

    job_id: JobId
    run: int
    organization_id: str | None
    request: JobRequested | None
    in_archive: bool
    outcome: RunOutcome | None
    fact: Mapping[str, Any] | None
    dead_lettered: bool
    saved: Saved | None
    moved_at: datetime


def request_of_run(event: Mapping[str, Any], run: int) -> JobRequested:
    """Return the request for a run, made from this run's or an earlier request."""
    request = JobRequested.model_validate(event)
    if request.run == run:
        return request
    return next_run(request, run)


def remedy(still: StillRun) -> Sequence[Record]:
    """Return what the run is sent; nothing if nothing helps."""
    request = None if still.request is None else record(JOB_REQUESTS, still.request)
    if still.outcome is None and still.dead_lettered:
        return ()
    if still.outcome in {None, "rejected"}:
        needs = request
        if needs is not None and still.in_archive:
            needs = replace(needs, headers={FOR_GROUP: QUOTA.encode()})
        return () if needs is None else (needs,)
    unseen = () if request is None or still.in_archive else (request,)
    fact = _completed(still) if still.outcome == "completed" else _kept(still)
    return unseen if fact is None else (*unseen, fact)


def given_up_as(still: StillRun, *, now: datetime, expiry: timedelta) -> JobFailed | None:
    """Return the fact that ends a run which nothing can help, or None."""
    if still.outcome is not None or still.organization_id is None:
        return None
    if still.dead_lettered:
        code, message = "dead_lettered", "its event could not be processed and is kept for replay"
    elif still.request is None and still.moved_at < now - expiry:
        code, message = "expired", f"it stood still since {still.moved_at.isoformat()}, and its request was lost"
    else:
        return None
    data = Failed(organization_id=still.organization_id, code=code, error_message=message)
    return fact(JobFailed, still.job_id, still.run, data, at=now, trace=_trace(still))


def _kept(still: StillRun) -> Record | None:
    if still.fact is None:
        return None
    return Record(JOB_EVENTS, str(still.job_id).encode(), orjson.dumps(still.fact))


def _completed(still: StillRun) -> Record | None:
    """Make the fact as the generation stage does: of what the attempt has saved, and nothing else."""
    if still.saved is None or still.organization_id is None:
        return None
    fact = job_completed(
        still.job_id,
        still.run,
        organization_id=still.organization_id,
        usage=still.saved.usage,
        at=still.saved.at,
        trace=_trace(still),
    )
    return record(JOB_EVENTS, fact)


def _trace(still: StillRun) -> Trace:
    return Trace(still.request.traceparent, still.request.tracestate) if still.request else NO_TRACE
