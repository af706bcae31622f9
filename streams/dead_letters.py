"""Dead letters: the original entry, byte for byte, and in its headers where it came from and why it failed.

stage ──▶ scheduled_events ──▶ dead-letters ──▶ failures ──▶ failed_events
A letter is written to `scheduled_events` before it is published. The transaction that writes the row of `failed_events`
removes it there. Until then it is published again and again, so that a broker may lose all that it has.
"""

import hashlib
import traceback
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

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

# Longer than the failures stage usually takes. Shorter: what the broker lost is found sooner; longer: fewer letters are
# told twice, which changes nothing, while that stage is away.
UNTIL_KEPT: Final = timedelta(seconds=30)
NOT_YET_KEPT: Final = "dead letter, until failed_events has it"

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


def letter_id(topic: str, stage: str, key: bytes | None, event: bytes | None) -> UUID:
    """Return the identity of a letter: the same entry failing at a stage again, or told of again, has the same."""
    digest = hashlib.sha256()
    for part in (topic.encode(), stage.encode(), key, event):
        # A missing part differs from an empty one, and no two lists of parts read the same.
        digest.update(b"-" if part is None else len(part).to_bytes(8, "big") + part)
    return uuid5(NAMESPACE_URL, f"teamfit:dead-letter:{digest.hexdigest()}")
