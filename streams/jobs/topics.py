"""The topics, which events travel on each, and which consumer groups read it.

A topic is trimmed only of what all its groups have acknowledged.
"""

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from infra.errors import InvalidEvent
from streams.delivery.deliveries import DEAD_LETTERS, Delivery, Record
from streams.jobs.events import (
    JobAccepted,
    JobCancelled,
    JobCancelRequested,
    JobCompleted,
    JobEvent,
    JobFailed,
    JobProgressed,
    JobRejected,
    JobRequested,
    JobStarted,
    parse_event,
)

JOB_REQUESTS: Final = "job-requests"
JOB_ACCEPTED: Final = "job-accepted"
JOB_ACCEPTED_PRIORITY: Final = "job-accepted-priority"
JOB_EVENTS: Final = "job-events"

QUOTA: Final = "quota"
GENERATION: Final = "generation"
PROJECTION: Final = "projection"
FAILURES: Final = "failures"

CONSUMER_GROUPS: Final[dict[str, tuple[str, ...]]] = {
    JOB_REQUESTS: (QUOTA, PROJECTION),
    JOB_ACCEPTED: (GENERATION,),
    JOB_ACCEPTED_PRIORITY: (GENERATION,),
    JOB_EVENTS: (PROJECTION, QUOTA),
    DEAD_LETTERS: (FAILURES,),
}

# On `dead-letters` travels whatever failed.
EVENTS_ON: Final[Mapping[str, tuple[type[BaseModel], ...]]] = {
    JOB_REQUESTS: (JobRequested, JobCancelRequested),
    JOB_ACCEPTED: (JobAccepted,),
    JOB_ACCEPTED_PRIORITY: (JobAccepted,),
    JOB_EVENTS: (JobStarted, JobProgressed, JobCompleted, JobFailed, JobRejected, JobCancelled),
}


def type_of(model: type[BaseModel]) -> str:
    """Return the CloudEvents type of an event model, such as `teamfit.job.requested.v1`."""
    return str(model.model_fields["type"].default)


def read_event(delivery: Delivery) -> JobEvent:
    """Read the event of a delivery.

    Raises:
        InvalidEvent: it is malformed, or belongs on another topic.
    """
    event = parse_event(delivery.value, delivery.headers, written_at=delivery.written_at)
    belong = EVENTS_ON.get(delivery.topic, ())
    if belong and not isinstance(event, belong):
        expected = " or ".join(repr(type_of(model)) for model in belong)
        raise InvalidEvent(f"type: {event.type!r} does not belong on {delivery.topic}; expected {expected}")
    return event


def record(topic: str, event: JobEvent) -> Record:
    """Return the record that carries an event, keyed by its job."""
    return Record(topic, event.key, event.encode())
