"""This module reads a CloudEvent as its sender wrote it, in either mode. It gives one mapping of attributes and `data`.

| mode | the value holds | the headers hold |
| --- | --- | --- |
| structured | the whole event, as JSON | nothing that counts |
| binary | the data alone, as JSON | each attribute, and perhaps `content-type` |

An attribute's header is `ce_<name>` (Kafka), `ce-<name>` (HTTP, NATS), `cloudEvents:<name>` or `cloudEvents_<name>`
(AMQP), in any case. HTTP's is percent-encoded, and may stand in quotation marks.

An attribute that is null is absent, and so is an optional one that is blank. `data_base64` is decoded to the JSON that
it holds. A byte order mark is skipped.
Sources: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md and
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md and
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md

What comes in place of one is recognized, so that the refusal can name it, and say what to set.
Sources: each service's page of its message format: Amazon SNS (raw message delivery), Amazon EventBridge (input
transformers), Google Pub/Sub (payload unwrapping), Azure Event Grid (CloudEvents schema), Kafka Connect
(`schemas.enable`), Debezium (event flattening).
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import unquote_to_bytes

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import from_json

from infra.errors import InvalidEvent

# Type and subtype in RFC 6838's characters; the subtype is `json`, or `x-json` as it once was, or ends in `+json`, in
# any case, whatever follows.
_NAME: Final = r"[A-Za-z0-9!#$&^_.+-]+"
_JSON: Final = rf"^{_NAME}/({_NAME}\+|[xX]-)?[jJ][sS][oO][nN][ \t]*(;[^\x00-\x08\x0a-\x1f\x7f]*)?$"
_LONGEST_MEDIA_TYPE: Final = 256


def _json_media_type(text: str) -> str:
    # A header that was folded is one line.
    text = " ".join(text.split())
    if len(text) > _LONGEST_MEDIA_TYPE or not re.match(_JSON, text):
        raise ValueError(
            f"must be a JSON media type, such as application/json, of at most {_LONGEST_MEDIA_TYPE} characters; send "
            "the data as JSON, or leave this out"
        )
    return text


JsonMediaType: TypeAlias = Annotated[
    str,
    AfterValidator(_json_media_type),
    WithJsonSchema({"type": "string", "maxLength": _LONGEST_MEDIA_TYPE, "pattern": _JSON}),
]

_STRUCTURED: Final = re.compile(r"\s*application/cloudevents(\+json)?\s*(;|$)", re.IGNORECASE)
_ATTRIBUTE: Final = re.compile(r"(?:ce[_-]|cloudevents[:_])(.+)")
_OF_HTTP: Final = "ce-"
_IN_QUOTES: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
# Those that tell a binary event; something on the way may add others to a structured one.
_TELLING: Final = frozenset({"specversion", "type"})
_CONTENT_TYPES: Final = frozenset({"content-type", "content_type", "contenttype"})
_OPTIONAL: Final = frozenset({"datacontenttype", "time", "idempotencykey", "traceparent", "tracestate"})
# What Go writes for a time that was never set.
_ZERO_TIMES: Final = re.compile(r"0001-01-01T00:00:00(\.0+)?(Z|[+-]00:00)?", re.IGNORECASE)
UNKNOWN_SOURCE: Final = "unknown"
_BOM: Final = b"\xef\xbb\xbf"
_OF_URLS: Final = str.maketrans("-_", "+/")


def read_attributes(
    raw: bytes | None, headers: Mapping[str, bytes], *, written_at: datetime | None = None
) -> dict[str, Any]:
    """Return the attributes of an event and its `data`, unchecked.

    Args:
        raw: the entry's value.
        headers: the entry's headers.
        written_at: the time of an event that has none of its own.

    Raises:
        InvalidEvent: the bytes hold no JSON object, or contradict themselves.
    """
    attributes = _in_headers(headers)
    if attributes:
        event: dict[str, Any] = {name: _header(name, value) for name, value in attributes.items()}
        event["data"] = _json(raw, "data") if raw else None
    else:
        event = _structured(raw)
    event = {name: value for name, value in event.items() if not _is_absent(name, value)}
    if without_zero_time(event.get("time")) is None:
        event.pop("time", None)
    # CloudEvents requires both; who leaves one out means the version that there is, and must not pass for one of ours.
    filled_in = {"specversion": "1.0", "source": UNKNOWN_SOURCE}
    return {**filled_in, **event} if written_at is None else {**filled_in, "time": written_at, **event}


def _is_absent(name: str, value: object) -> bool:
    return value is None or (name in _OPTIONAL and isinstance(value, str) and not value.strip())


def header_attributes(headers: Mapping[str, bytes]) -> dict[str, str]:
    """Return the attributes of an event in binary mode, whatever their bytes. Another event has none."""
    return {name: value.decode(errors="replace") for name, value in _in_headers(headers).items()}


def _in_headers(headers: Mapping[str, bytes]) -> dict[str, bytes]:
    found = {name.lower(): value for name, value in headers.items()}
    attributes = {
        name[1]: _from_http(value) if header.startswith(_OF_HTTP) else value
        for header, value in found.items()
        if (name := _ATTRIBUTE.fullmatch(header))
    }
    content_type = next((found[name] for name in _CONTENT_TYPES if name in found), b"")
    if not attributes.keys() & _TELLING or _STRUCTURED.match(content_type.decode(errors="replace")):
        return {}
    if content_type:
        attributes.setdefault("datacontenttype", content_type.decode(errors="replace").encode())
    return attributes


def _from_http(value: bytes) -> bytes:
    """Return what a header means by HTTP's binding: out of its quotation marks, and percent-decoded once."""
    quoted = _IN_QUOTES.fullmatch(value)
    return unquote_to_bytes(re.sub(rb"\\(.)", rb"\1", quoted[1]) if quoted else value)


def without_zero_time(time: object) -> object:
    """Return None in place of a time that was never set."""
    return None if isinstance(time, str) and _ZERO_TIMES.fullmatch(time) else time


def _structured(raw: bytes | None) -> dict[str, Any]:
    if not raw:
        msg = "event: the entry has no `event` field, or it is empty; put the CloudEvents JSON there"
        raise InvalidEvent(msg)
    event = _json(raw, "event")
    if not isinstance(event, dict):
        what = "a list; write each event of a batch as an entry of its own" if isinstance(event, list) else "no object"
        raise InvalidEvent(f"event: must be one CloudEvents object in JSON, and is {what}")
    if (envelope := named_envelope(event)) is not None:
        raise InvalidEvent(f"event: is {envelope}")
    encoded = event.pop("data_base64", None)
    if encoded is None:
        return event
    if event.get("data") is not None:
        raise InvalidEvent("data_base64: the event has data too; leave one of them out")
    try:
        decoded = _from_base64(encoded)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidEvent(f"data_base64: is no Base64 text ({error}); send `data` as a JSON object") from error
    return {**event, "data": _json(decoded, "data_base64")}


def _from_base64(encoded: object) -> bytes:
    """Return the bytes: SDKs break the text into lines, leave its padding out, or use the alphabet of URLs."""
    if not isinstance(encoded, str):
        raise TypeError("it must be a string")
    return base64.b64decode(usual_base64("".join(encoded.split())), validate=True)


def usual_base64(text: str) -> str:
    """Return a text in the usual alphabet of Base64, and with its padding."""
    letters = text.translate(_OF_URLS).rstrip("=")
    return letters + "=" * (-len(letters) % 4)


def _json(raw: bytes, field: str) -> Any:  # noqa: ANN401 - it is whatever somebody sent
    raw = raw.removeprefix(_BOM)
    try:
        return from_json(raw)
    except ValueError as error:
        # Half a surrogate pair is JSON, and no text. Python reads it, so that the validation can name the field.
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            raise InvalidEvent(f"{field}: Invalid JSON: {error}{advice_on_bytes(raw)}") from error


def _header(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"{name}: is not UTF-8 in the header of this attribute") from error


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
