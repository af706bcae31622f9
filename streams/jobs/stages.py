"""This registry lists the consumer groups, their topics, and a run's path through them.

All else follows from this list: what `teamfit worker` offers, what the local stack starts, whose acknowledgements trim
a topic, where a run goes on, what may be paused for one organization and is then told as a wait, which failed events
start a run when they are replayed, what follows from that, and whose poison ends one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Final

from infra.settings import settings
from streams.delivery.deliveries import DEAD_LETTERS
from streams.jobs.events import JobAccepted, JobRequested
from streams.jobs.topics import JOB_ACCEPTED, JOB_ACCEPTED_PRIORITY, JOB_EVENTS, JOB_REQUESTS, TOPICS, type_of


@dataclass(frozen=True, slots=True)
class ConsumerGroup:
    """A consumer group.

    Attributes:
        name: of the group, of its workers, and of its stage in logs and dead letters.
        module: where its Faust app is made, by `create(settings)`.
        reads: its topics.
        run: the event that brings a run to it, if runs pass through it, in the order of `STAGES`; a run ends when that
            event is given up.
    """

    name: str
    module: str
    reads: tuple[str, ...] = ()
    run: type[JobRequested | JobAccepted] | None = None


QUOTA: Final = "quota"
GENERATION: Final = "generation"
PROJECTION: Final = "projection"
FAILURES: Final = "failures"
WEBHOOKS: Final = "webhooks"
SCHEDULE: Final = "schedule"

STAGES: Final = (
    ConsumerGroup(QUOTA, "consumers.quota.worker", (JOB_REQUESTS, JOB_EVENTS), run=JobRequested),
    ConsumerGroup(GENERATION, "consumers.generation.worker", (JOB_ACCEPTED, JOB_ACCEPTED_PRIORITY), run=JobAccepted),
    ConsumerGroup(PROJECTION, "consumers.projection.worker", (JOB_REQUESTS, JOB_EVENTS)),
    ConsumerGroup(FAILURES, "consumers.failures.worker", (DEAD_LETTERS,)),
    ConsumerGroup(WEBHOOKS, "consumers.webhooks.worker", (JOB_EVENTS,)),
    # It reads nothing, but its workers elect a leader as those of a group do.
    ConsumerGroup(SCHEDULE, "producers.schedule.worker"),
)

# A topic is trimmed only of what all its groups have acknowledged.
CONSUMER_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    topic: tuple(stage.name for stage in STAGES if topic in stage.reads) for topic in TOPICS
}

# Where an event brings a run to a stage: topic, group and type.
RUN_ENTRIES: Final = tuple(
    (topic, stage.name, type_of(stage.run))
    for stage in STAGES
    if stage.run is not None
    for topic in stage.reads
    if stage.run in TOPICS[topic].carries
)
# The stages that a run passes, in order, and the topics that bring it to each. The first is written; what stands in the
# others is worked off.
RUN_TOPICS: Final[Mapping[str, tuple[str, ...]]] = {
    stage.name: tuple(topic for topic, name, _ in RUN_ENTRIES if name == stage.name)
    for stage in STAGES
    if stage.run is not None
}
# The first decides about a request; what it admits waits in line, and is released to those after it.
ADMITS, *_after = RUN_TOPICS
RELEASED_TO: Final = tuple(_after)


def topic_after(stage: str) -> str:
    """Return the topic that brings a run from this stage to the next."""
    path = list(RUN_TOPICS)
    return RUN_TOPICS[path[path.index(stage) + 1]][0]


def app_on_demand(module: str) -> Callable[[str], object]:
    """Return a package's `__getattr__` that makes `app` when the `faust` command asks.

    Importing the package needs neither settings nor a broker, nor Faust.
    """

    @cache
    def made() -> object:
        return import_module(module).create(settings())

    def attribute(name: str) -> object:
        if name == "app":
            return made()
        raise AttributeError(f"module {module.rpartition('.')[0]!r} has no attribute {name!r}")

    return attribute
