"""Dead letters: the original entry, byte for byte, and in its headers where it came from and why it failed."""

import traceback
from datetime import UTC, datetime

from streams.deliveries import Delivery, Record
from streams.redis.dead_letter import (
    DEAD_LETTER_ERROR,
    DEAD_LETTER_GROUP,
    DEAD_LETTER_REASON,
    DEAD_LETTER_TIME,
    DEAD_LETTER_TOPIC,
)
from streams.topics import DEAD_LETTERS

# Header names beside those of the transport, which writes a dead letter itself when an entry kills its worker.
ERROR_TYPE = "dead-letter-error-type"
TRACEBACK = "dead-letter-traceback"
REASON_GIVEN_UP = "given_up"

# The innermost frames say what broke; a runaway recursion must not fill the broker.
_LONGEST_TRACEBACK = 16_000
_LONGEST_MESSAGE = 4_000


def dead_letter(delivery: Delivery, *, group: str, error: Exception) -> Record:
    """Return the record that keeps a delivery which its stage gave up."""
    trace = "".join(traceback.format_exception(error))[-_LONGEST_TRACEBACK:]
    headers = {
        **delivery.headers,
        DEAD_LETTER_TOPIC: delivery.topic.encode(),
        DEAD_LETTER_GROUP: group.encode(),
        DEAD_LETTER_REASON: REASON_GIVEN_UP.encode(),
        ERROR_TYPE: type(error).__name__.encode(),
        DEAD_LETTER_ERROR: str(error)[:_LONGEST_MESSAGE].encode(errors="replace"),
        TRACEBACK: trace.encode(errors="replace"),
        DEAD_LETTER_TIME: datetime.now(UTC).isoformat().encode(),
    }
    return Record(DEAD_LETTERS, delivery.key, delivery.value, headers)
