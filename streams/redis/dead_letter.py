"""The headers of a dead letter.

A dead letter is the original entry, key and event byte for byte with its own headers, plus the headers below. Whoever
writes one (this transport for poison entries, an application for what it cannot process) uses the same names, so one
reader understands both. Nothing here needs Faust or redis-py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = [
    "DEAD_LETTER_DELIVERIES",
    "DEAD_LETTER_ENTRY_ID",
    "DEAD_LETTER_ERROR",
    "DEAD_LETTER_GROUP",
    "DEAD_LETTER_HEADERS",
    "DEAD_LETTER_REASON",
    "DEAD_LETTER_TIME",
    "DEAD_LETTER_TOPIC",
    "REASON_MAX_DELIVERIES",
    "Burial",
]

DEAD_LETTER_TOPIC = "dead-letter-topic"  # the topic that the entry was read from
DEAD_LETTER_GROUP = "dead-letter-group"  # the consumer group that gave up on it
DEAD_LETTER_ENTRY_ID = "dead-letter-entry-id"  # its ID in the stream, "<ms>-<seq>"
DEAD_LETTER_REASON = "dead-letter-reason"  # a stable code, such as `max_deliveries`
DEAD_LETTER_ERROR = "dead-letter-error"  # a sentence for people
DEAD_LETTER_DELIVERIES = "dead-letter-deliveries"  # how often the broker handed it over, in decimal
DEAD_LETTER_TIME = "dead-letter-time"  # when it became a dead letter, ISO 8601 in UTC

DEAD_LETTER_HEADERS = (
    DEAD_LETTER_TOPIC,
    DEAD_LETTER_GROUP,
    DEAD_LETTER_ENTRY_ID,
    DEAD_LETTER_REASON,
    DEAD_LETTER_ERROR,
    DEAD_LETTER_DELIVERIES,
    DEAD_LETTER_TIME,
)

REASON_MAX_DELIVERIES = "max_deliveries"


@dataclass(frozen=True, slots=True, kw_only=True)
class Burial:
    """The transport gave up on an entry, for this reason."""

    topic: str
    group: str
    entry_id: str
    reason: str
    error: str
    deliveries: int
    time: datetime | None = None

    def headers(self) -> dict[str, bytes]:
        """Return the headers to add to the original ones. `time` is now when it was not given."""
        time = (self.time or datetime.now(UTC)).astimezone(UTC)
        return {
            DEAD_LETTER_TOPIC: self.topic.encode(),
            DEAD_LETTER_GROUP: self.group.encode(),
            DEAD_LETTER_ENTRY_ID: self.entry_id.encode(),
            DEAD_LETTER_REASON: self.reason.encode(),
            DEAD_LETTER_ERROR: self.error.encode(),
            DEAD_LETTER_DELIVERIES: str(self.deliveries).encode(),
            DEAD_LETTER_TIME: time.isoformat().encode(),
        }
