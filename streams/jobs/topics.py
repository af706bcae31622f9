"""The topics, which events travel on each, and how a delivery is read."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from pydantic import BaseModel

from infra.errors import InvalidEvent
from streams.delivery.cloudevents import read_attributes
from streams.delivery.deliveries import ATTEMPT, DEAD_LETTERS, Delivery, Record
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
    event_of,
)
from streams.jobs.organization_facts import (
    BudgetReached,
    OrganizationFact,
    is_organization_fact,
    organization_fact,
)

E = TypeVar("E", bound=JobEvent)
Facts: TypeAlias = Callable[[JobEvent | OrganizationFact, Delivery], Awaitable[Sequence[Record]]]

JOB_REQUESTS: Final = "job-requests"
JOB_ACCEPTED: Final = "job-accepted"
JOB_ACCEPTED_PRIORITY: Final = "job-accepted-priority"
JOB_EVENTS: Final = "job-events"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic has a purpose, and a set of events that may travel on it."""

    what: str
    carries: tuple[type[BaseModel], ...] = ()


TOPICS: Final[Mapping[str, Topic]] = {
    JOB_REQUESTS: Topic(
        "What customers' teams ask for and withdraw. Upstream services may write here.",
        (JobRequested, JobCancelRequested),
    ),
    JOB_ACCEPTED: Topic("Requests that the quota stage admitted.", (JobAccepted,)),
    JOB_ACCEPTED_PRIORITY: Topic("The same, from older versions. Worked off, and written no more.", (JobAccepted,)),
    JOB_EVENTS: Topic(
        "Facts about jobs, and about what organizations have spent.",
        (JobStarted, JobProgressed, JobCompleted, JobFailed, JobRejected, JobCancelled, BudgetReached),
    ),
    DEAD_LETTERS: Topic(
        "Entries that could not be processed, byte for byte, and in headers where they came from and why."
    ),
}


def type_of(model: type[BaseModel]) -> str:
    """Return the CloudEvents type of an event model, such as `teamfit.job.requested.v1`."""
    return str(model.model_fields["type"].default)


def read_event(delivery: Delivery) -> JobEvent:
    """Read the job's event of a delivery.

    Raises:
        InvalidEvent: it is malformed, or belongs on another topic.
    """
    return _checked(event_of(_attributes(delivery)), delivery)


def read_fact(delivery: Delivery) -> JobEvent | OrganizationFact:
    """Read an event of a topic of facts, about a job or an organization.

    Raises:
        InvalidEvent: it is malformed, or belongs on another topic.
    """
    attributes = _attributes(delivery)
    if delivery.topic == JOB_EVENTS and is_organization_fact(attributes):
        return organization_fact(attributes)
    return _checked(event_of(attributes), delivery)


def about_jobs(handle: Callable[[JobEvent, Delivery], Awaitable[Sequence[Record]]]) -> Facts:
    """Return a handler of facts that ignores those about organizations."""

    async def handled(fact: JobEvent | OrganizationFact, delivery: Delivery) -> Sequence[Record]:
        return () if isinstance(fact, OrganizationFact) else await handle(fact, delivery)

    return handled


def _attributes(delivery: Delivery) -> dict[str, Any]:
    return read_attributes(delivery.value, delivery.headers, written_at=delivery.written_at)


def _checked(event: JobEvent, delivery: Delivery) -> JobEvent:
    topic = TOPICS.get(delivery.topic)
    belong = topic.carries if topic else ()
    if belong and not isinstance(event, belong):
        expected = " or ".join(repr(type_of(model)) for model in belong)
        raise InvalidEvent(f"type: {event.type!r} does not belong on {delivery.topic}; expected {expected}")
    if isinstance(event, JobRequested) and event.run > 1 and not delivery.is_ours:
        # Judged by the entry alone. By what is on record it could be refused by one stage and, when the first run has
        # ended meanwhile, be believed by another, and the job would stand in that run for ever.
        raise InvalidEvent("run: is for replays, which an operator makes; leave it out")
    return event


def expecting(*types: type[E]) -> Callable[[Delivery], E]:
    """Return a reader of deliveries that accepts these event types. It raises InvalidEvent for any other."""

    def decode(delivery: Delivery) -> E:
        event = read_event(delivery)
        if isinstance(event, types):
            return event
        expected = " or ".join(repr(type_of(model)) for model in types)
        raise InvalidEvent(f"type: {event.type!r} is not for this stage; expected {expected}")

    return decode


def record(topic: str, event: JobEvent | OrganizationFact) -> Record:
    """Return the record that carries an event, keyed by its job or organization.

    A request for a further run has an internal header, which is sealed when it is published: only ours ask for one.
    """
    further = isinstance(event, JobRequested) and event.run > 1
    return Record(topic, event.key, event.encode(), {ATTEMPT: b"1"} if further else {})
