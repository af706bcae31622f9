"""The lag is what waits in the broker, including what no worker will read."""

from collections.abc import Sequence
from dataclasses import dataclass

from producers.broker import Broker
from streams.redis.backlog import TopicBacklog


@dataclass(frozen=True, slots=True)
class Lag:
    """The entries that wait in the broker.

    Attributes:
        topics: each with what its consumer groups have still to do.
        unread: a sentence for each part that no worker reads, with the fix.
    """

    topics: Sequence[TopicBacklog]
    unread: Sequence[str]


async def read_lag(broker: Broker) -> Lag:
    """Ask the broker what waits.

    Raises:
        DependencyDown: the broker is away.
        TransportError: it does not tell, or is Kafka, whose own tools do.
    """
    topics = await broker.backlogs()
    return Lag(topics, [sentence for topic in topics for sentence in _unread(topic)])


def _unread(topic: TopicBacklog) -> list[str]:
    return [
        *(
            f"No worker reads the stream {stream}: its writer counts the partitions of {topic.topic} differently. "
            "Put the same `partitions=` into every BROKER_URL."
            for stream in topic.unread
        ),
        *(
            f"No worker reads {topic.topic} for {group.group}: start `teamfit worker {group.group}`."
            for group in topic.groups
            if not group.consumers and (group.lag or group.pending)
        ),
    ]
