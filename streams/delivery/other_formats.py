"""This module recognizes what comes in place of a CloudEvent.

The refusal can then name it, and say what to set.

Sources: each service's page of its message format: Amazon SNS (raw message delivery), Amazon EventBridge (input
transformers), Google Pub/Sub (payload unwrapping), Azure Event Grid (CloudEvents schema), Kafka Connect
(`schemas.enable`), Debezium (event flattening).
"""

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["advice_on_bytes", "named_envelope"]

# Bytes that come in place of JSON begin so.
_NO_JSON: Final = (
    (b"\0", "; it begins with a schema registry's frame: set the producer's serializer to plain JSON"),
    (b"\x1f\x8b", "; it is compressed by gzip: send it as it is"),
    (b"\x28\xb5\x2f\xfd", "; it is compressed by zstd: send it as it is"),
    (b"<", "; it is XML: send JSON"),
)

# The names that tell an envelope, what it is, and what has the event arrive without it.
_ENVELOPES: Final = (
    ({"Type", "Message"}, "a notification of Amazon SNS around the event; turn on raw message delivery"),
    ({"Records"}, "a batch of an AWS service; write the event of each record as an entry of its own"),
    ({"detail-type", "detail"}, "an event of Amazon EventBridge; have an input transformer write a CloudEvent"),
    ({"message", "subscription"}, "a push of Google Pub/Sub around the event; turn on payload unwrapping"),
    ({"eventType", "eventTime"}, "an event of Azure Event Grid's own schema; choose its CloudEvents schema"),
    ({"schema", "payload"}, "Kafka Connect's schema around the event; set its converter's schemas.enable=false"),
    ({"before", "after", "op"}, "a change of Debezium; have its outbox event router write the event"),
)  # fmt: skip


def advice_on_bytes(raw: bytes) -> str:
    """Return what to do about bytes that are no JSON. It follows the sentence that says so, and is often empty."""
    return next((advice for begins, advice in _NO_JSON if raw.startswith(begins)), "")


def named_envelope(event: Mapping[str, Any]) -> str | None:
    """Return what a known envelope is, and what to do about it. An object with a type of its own is none."""
    if "type" in event:
        return None
    return next((says for names, says in _ENVELOPES if names <= event.keys()), None)
