"""A delivery, a record to publish, and the outcomes a delivery can come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, TypeAlias

from infra.errors import DependencyDown

DEAD_LETTERS: Final = "dead-letters"
# Header names. An event that is tried again, or replayed, goes back to its topic for one consumer group alone.
ATTEMPT = "attempt"
FOR_GROUP = "for-group"
SEAL: Final = "seal"  # of the two above; see `streams.delivery.seal`


def _no_headers() -> Mapping[str, bytes]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Delivery:
    """One hand-over of an entry to a stage, as the broker has it.

    Attributes:
        entry: which entry of the broker it is, the same each time that it is handed over; None if that is not known.
            A second hand-over means that the first one's worker has lost it.
        written_at: when the entry was written, by itself or by the broker; the same at each hand-over.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes] = field(default_factory=_no_headers)
    entry: str | None = None
    written_at: datetime | None = None

    @property
    def attempt(self) -> int:
        """Return the number of this try by the stage, from 1. A header that is no number counts as 1."""
        text = self.headers.get(ATTEMPT, b"1")
        return int(text) if text.isdigit() and 0 < len(text) < 6 else 1  # noqa: PLR2004 - five digits are plenty

    @property
    def is_ours(self) -> bool:
        """Return whether one of ours wrote it. Headers that only ours may set are taken off other entries."""
        return ATTEMPT in self.headers or FOR_GROUP in self.headers

    def is_for(self, group: str) -> bool:
        """Return whether this consumer group should act on it.

        A dead letter carries the headers of its original, and those were addressed to the group that gave it up.
        """
        return self.topic == DEAD_LETTERS or self.headers.get(FOR_GROUP, group.encode()) == group.encode()


@dataclass(frozen=True, slots=True)
class Record:
    """A record is one entry that will be written to a topic."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes] = field(default_factory=_no_headers)


@dataclass(frozen=True, slots=True)
class Settled:
    """The effect is durable; what follows from it is to be published."""

    publish: Sequence[Record] = ()


@dataclass(frozen=True, slots=True)
class RetryLater:
    """This try failed or came too early, and another follows after the delay.

    The next one has this attempt's number.
    """

    error: Exception
    delay: timedelta
    attempt: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The stage gives up. The original is kept as a dead letter, and the job fails."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Hold:
    """A dependency is away: wait, then take the same delivery again. Nothing is spent and nothing is written."""

    error: DependencyDown


Outcome: TypeAlias = Settled | RetryLater | DeadLetter | Hold
