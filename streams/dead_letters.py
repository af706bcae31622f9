"""Dead letters: the original entry, byte for byte, and in its headers where it came from and why it failed."""

import traceback
from datetime import UTC, datetime

from streams.deliveries import Delivery, Record
from streams.topics import DEAD_LETTERS

# Header names shared with the transport, which writes a dead letter itself when an entry kills its worker.
TOPIC = "dead-letter-topic"
GROUP = "dead-letter-group"
REASON = "dead-letter-reason"
ERROR_TYPE = "dead-letter-error-type"
ERROR = "dead-letter-error"
TRACEBACK = "dead-letter-traceback"
TIME = "dead-letter-time"

# The innermost frames say what broke; a runaway recursion must not fill the broker.
_LONGEST_TRACEBACK = 16_000
_LONGEST_MESSAGE = 4_000


def dead_letter(delivery: Delivery, *, group: str, error: Exception) -> Record:
    """Return the record that keeps a delivery which its stage gave up."""
    trace = "".join(traceback.format_exception(error))[-_LONGEST_TRACEBACK:]
    headers = {
        **delivery.headers,
        TOPIC: delivery.topic.encode(),
        GROUP: group.encode(),
        REASON: b"given_up",
        ERROR_TYPE: type(error).__name__.encode(),
        ERROR: str(error)[:_LONGEST_MESSAGE].encode(errors="replace"),
        TRACEBACK: trace.encode(errors="replace"),
        TIME: datetime.now(UTC).isoformat().encode(),
    }
    return Record(DEAD_LETTERS, delivery.key, delivery.value, headers)
