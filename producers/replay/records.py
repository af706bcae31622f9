"""The records that a replay sends: plain functions of the failed event."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TypeAlias

from infra import tracing
from infra.clock import Clock
from infra.errors import InvalidEvent, Permanent
from streams.delivery.deliveries import ATTEMPT, FOR_GROUP, Record
from streams.delivery.letters import original_name, original_value
from streams.delivery.traces import Trace
from streams.jobs.events import JobAccepted, JobFailed, JobRequested, parse_event
from streams.jobs.facts import job_requested, next_run
from streams.jobs.outcomes import job_failed
from streams.jobs.topics import JOB_REQUESTS, record

_ANY_TIME: Final = datetime.fromtimestamp(0, UTC)

# As `failed_events` keeps headers: text, or {"base64": "..."}.
KeptHeaders: TypeAlias = Mapping[str, str | Mapping[str, str]]


def rerun(raw: bytes | None, headers: KeptHeaders, *, run: int, at: datetime) -> Record:
    """Return the request for a job's next run, made from the event that failed.

    The same arguments give the same bytes.
    """
    event = _starting_event(raw, headers)
    traceparent = tracing.rerun(event.traceparent, run)
    if isinstance(event, JobRequested):
        again = next_run(event, run, at=at).model_copy(update={"traceparent": traceparent})
        return record(JOB_REQUESTS, again)
    request = job_requested(
        job_id=event.job_id,
        organization_id=event.data.organization_id,
        team_id=event.data.team_id,
        requirements=event.data.requirements,
        at=at,
        run=run,
        trace=Trace(traceparent, event.tracestate),
    )
    return record(JOB_REQUESTS, request)


def resend(topic: str, stage: str, key: bytes | None, raw: bytes | None, headers: KeptHeaders) -> Record:
    """Return the entry as it was, for one consumer group alone, as its first attempt."""
    original = {name: value for name, value in _original(headers).items() if name != ATTEMPT}
    return Record(topic, key, raw, {**original, FOR_GROUP: stage.encode()})


def ended(raw: bytes | None, headers: KeptHeaders, clock: Clock) -> JobFailed:
    """Return the fact that a run without an outcome has failed."""
    event = _starting_event(raw, headers)
    return job_failed(event, Permanent("interrupted", f"run {event.run} was interrupted; it is started again"), clock)


def starts_run(raw: bytes | None, headers: KeptHeaders) -> bool:
    """Return true if a failed event is one that starts a run of a job."""
    try:
        _starting_event(raw, headers)
    except InvalidEvent:
        return False
    return True


def _starting_event(raw: bytes | None, headers: KeptHeaders) -> JobRequested | JobAccepted:
    # When it was written is not on record, and does not matter: a next run has a time of its own.
    event = parse_event(raw, _original(headers), written_at=_ANY_TIME)
    if not isinstance(event, JobRequested | JobAccepted):
        raise InvalidEvent(f"type: {event.type!r} starts no run")
    return event


def _original(headers: KeptHeaders) -> dict[str, bytes]:
    return {original_name(name): original_value(value) for name, value in headers.items()}
