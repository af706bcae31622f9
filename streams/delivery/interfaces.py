"""The stage wrapper and the producers ask these of whoever writes to topics and tables."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from streams.delivery.deliveries import Record
from streams.delivery.letters import FailedEvent


class Publisher(Protocol):
    """Whoever can write to topics."""

    async def publish(self, records: Sequence[Record]) -> None:
        """Return when the broker has all records. Raises DependencyDown when it may not have them all."""
        ...


class RetrySchedule(Protocol):
    """Whoever can keep a record until it is due."""

    async def schedule(self, record: Record, delay: timedelta, *, reason: str) -> None:
        """Return when the record is durably kept; repeating the call keeps it once."""
        ...


class FailedEventStore(Protocol):
    """Whoever can keep a delivery that a stage gave up."""

    async def keep_one(self, letter: FailedEvent) -> None:
        """Return when it is durably kept; repeating the call keeps it once. Raises DependencyDown, and nothing else."""
        ...
