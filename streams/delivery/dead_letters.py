"""A dead letter keeps the original entry byte for byte. Its headers say where it came from and why it failed.

stage ──▶ failed_events, then dead-letters (for whoever else reads that topic)
transport, for an entry that kills its workers ──▶ dead-letters ──▶ failures ──▶ failed_events
"""

import hashlib
import json
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, UUID, uuid5

from streams.delivery.cloudevents import header_attributes
from streams.delivery.deliveries import DEAD_LETTERS, Delivery, Record
from streams.redis.dead_letter import (
    DEAD_LETTER_ERROR,
    DEAD_LETTER_GROUP,
    DEAD_LETTER_REASON,
    DEAD_LETTER_TIME,
    DEAD_LETTER_TOPIC,
)

# Header names beside those of the transport, which writes a dead letter itself when an entry kills its worker.
ERROR_TYPE = "dead-letter-error-type"
TRACEBACK = "dead-letter-traceback"
REASON_GIVEN_UP = "given_up"

# The innermost frames say what broke; a runaway recursion must not fill the broker.
_LONGEST_TRACEBACK = 16_000
_LONGEST_MESSAGE = 4_000


def dead_letter(delivery: Delivery, *, group: str, error: Exception) -> Record:
    """Return the record that keeps a delivery which its stage gave up."""
    trace = _traceback(error)[-_LONGEST_TRACEBACK:]
    headers = {
        **delivery.headers,
        DEAD_LETTER_TOPIC: delivery.topic.encode(),
        DEAD_LETTER_GROUP: group.encode(),
        DEAD_LETTER_REASON: REASON_GIVEN_UP.encode(),
        ERROR_TYPE: type(error).__name__.encode(),
        DEAD_LETTER_ERROR: _message(error)[:_LONGEST_MESSAGE].encode(errors="replace"),
        TRACEBACK: trace.encode(errors="replace"),
        DEAD_LETTER_TIME: datetime.now(UTC).isoformat().encode(),
    }
    return Record(DEAD_LETTERS, delivery.key, delivery.value, headers)


def _message(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an error that cannot say what it is about is kept by its name
        return type(error).__name__


def _traceback(error: Exception) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - the same
        return type(error).__name__


def letter_id(topic: str, stage: str, key: bytes | None, event: bytes | None, headers: Mapping[str, bytes]) -> UUID:
    """Return the identity of a letter. The same entry failing at a stage again, or told of again, has the same.

    Of the headers those count in which an event in binary mode has its attributes; others change on the way.
    """
    digest = hashlib.sha256()
    for part in (topic.encode(), stage.encode(), key, event):
        # A missing part differs from an empty one, and no two lists of parts read the same.
        digest.update(b"-" if part is None else len(part).to_bytes(8, "big") + part)
    if attributes := header_attributes(headers):
        digest.update(json.dumps(attributes, sort_keys=True).encode())
    return uuid5(NAMESPACE_URL, f"teamfit:dead-letter:{digest.hexdigest()}")
