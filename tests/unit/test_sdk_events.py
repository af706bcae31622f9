"""Requests as SDKs of CloudEvents write them, in each mode and by each binding's names: taken, or refused by field."""

import base64
import gzip
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

import pytest

from infra.errors import InvalidEvent
from streams.jobs.events import JobRequested, parse_event
from streams.redis.entry import decode_entry

Fields: TypeAlias = Mapping[str, bytes]

SUBJECT = "0f9b9ad4-6f2c-4b0e-9a51-0d2d8e1c7a11"
WRITTEN_AT = datetime(2031, 4, 1, 9, 0, tzinfo=UTC)
TIME = "2031-04-01T09:30:00Z"
DATA = {"organization_id": "acme", "team_id": "acme-platform", "requirements": "An hour outdoors for 9 people"}
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "type": "teamfit.job.requested.v1",
    "id": "order-42",
    "source": "https://hr.example.org/teams",
    "subject": SUBJECT,
    "time": TIME,
    "data": DATA,
}


def structured(field: str = "event", *, headers: Mapping[str, str] | None = None, **changes: object) -> Fields:
    """Return an entry that holds the whole event; `changes` replace attributes, `...` removes one."""
    event = {name: value for name, value in (EVENT | changes).items() if value is not ...}
    more = {name: value.encode() for name, value in (headers or {}).items()}
    return {"key": SUBJECT.encode(), field: json.dumps(event).encode(), **more}


def binary(
    prefix: str,
    *,
    content_type: Mapping[str, str] | None = None,
    data: bytes | None = None,
    field: str = "data",
    **changes: object,
) -> Fields:
    """Return an entry whose attributes stand beside the data, under names that begin with the prefix."""
    attributes = {name: value for name, value in (EVENT | changes).items() if name != "data" and value is not ...}
    headers = {f"{prefix}{name}": str(value).encode() for name, value in attributes.items()}
    types = {name: value.encode() for name, value in (content_type or {"content-type": "application/json"}).items()}
    return {**headers, **types, field: json.dumps(DATA).encode() if data is None else data}


def in_base64(data: object = DATA) -> str:
    """Return JSON as SDKs put bytes into an event."""
    return base64.b64encode(json.dumps(data).encode()).decode()


_CONTENT = "application/cloudevents+json"

TAKEN: Final[dict[str, Fields]] = {
    # Go
    "Go, structured, by Kafka": structured(headers={"content-type": _CONTENT}),
    "Go, binary, by Kafka": binary("ce_"),
    "Go, by NATS": binary("ce-", content_type={"Content-Type": "application/json"}),
    "Go, bytes": structured(data=..., data_base64=in_base64(), datacontenttype="application/json"),
    "Go, nanoseconds": structured(time="2031-04-01T09:30:00.000000001Z"),
    "Go, a time never set": structured(time="0001-01-01T00:00:00Z"),
    # Java
    "Java, a time without seconds": structured(time="2031-04-01T09:30Z"),
    "Java, an offset without seconds": structured(time="2031-04-01T11:30+02:00"),
    "Java, binary, by Kafka": binary("ce_", content_type={"content-type": "application/json"}, dataschema="urn:x"),
    "Java, by AMQP": binary("cloudEvents:"),
    "Java, by AMQP, as JMS has it": binary("cloudEvents_", content_type={"contentType": "application/json"}),
    "Spring, by RabbitMQ": binary("cloudEvents:", content_type={"contentType": "application/json;charset=UTF-8"}),
    "Spring, by Kafka": binary("ce_", content_type={"contentType": "application/json"}),
    "Java, structured with its charset": structured(headers={"content-type": f"{_CONTENT}; charset=UTF-8"}),
    "Java, nulls": structured(dataschema=None, datacontenttype=None, time=None),
    # JavaScript
    "JavaScript, milliseconds": structured(time="2031-04-01T09:30:00.000Z"),
    "JavaScript, binary, by Kafka": binary("ce_", content_type={"content-type": "application/json; charset=utf-8"}),
    "JavaScript, extensions": structured(partitionkey=SUBJECT, sampledrate=30, correlationid="7"),
    "JavaScript, structured by MQTT": structured("data", headers={"Content-Type": _CONTENT}),
    "JavaScript, Base64 beside null": structured(data=None, data_base64=in_base64()),
    # C#
    "C#, seven decimals": structured(time="2031-04-01T09:30:00.0000000Z"),
    "C#, seven decimals and an offset": structured(time="2031-04-01T09:30:00.0000000+00:00"),
    "C#, the least time": structured(time="0001-01-01T00:00:00+00:00"),
    "C#, a byte order mark": {"event": b"\xef\xbb\xbf" + json.dumps(EVENT).encode()},
    "C#, binary, by AMQP": binary("cloudEvents:", content_type={"content-type": "application/json"}),
    "C#, binary, by Kafka": binary("ce_", data=b"\xef\xbb\xbf" + json.dumps(DATA).encode()),
    "Azure, by HTTP's names": binary("CE-", content_type={"CONTENT-TYPE": "application/json"}),
    # Python, Ruby, Rust, PHP
    "Python, a date with a space": structured(time="2031-04-01 09:30:00+00:00"),
    "Python, an offset without a colon": structured(time="2031-04-01T09:30:00+0000"),
    "Ruby": structured(time="2031-04-01T09:30:00+00:00", datacontenttype="application/json"),
    "Rust": structured(time="2031-04-01T09:30:00.123456789+00:00", data=DATA | {"run_at": None}),
    "PHP, slashes escaped": {"event": json.dumps(EVENT).replace("/", "\\/").encode()},
    # Brokers and runtimes
    "Dapr": structured("data", pubsubname="pubsub", topic="job-requests", traceid="", expiration=""),
    "Knative, headers of its own": structured(knativehistory="default-kne-trigger", knativearrivaltime=TIME),
    "Kafka, a key of its own": {**binary("ce_"), "key": b"partition-7"},
    "EventBridge, as a UUID without dashes": structured(subject=SUBJECT.replace("-", "")),
    "a UUID in braces": structured(subject=f"{{{SUBJECT.upper()}}}"),
    "what the spec requires left out": structured(source=..., specversion=...),
    "binary in the event's field": binary("ce_", field="event"),
    "Debezium's outbox router": {
        **binary("ce_", content_type={"content-type": "application/json"}, iodebeziumop="c", iodebeziumtsms="1"),
        "id": b"order-42",
    },
    "Spring Cloud Stream, with headers of its own": {
        **binary("ce-", content_type={"contentType": "application/json"}),
        "spring_json_header_types": b'{"ce-id":"java.lang.String"}',
        "timestamp": b"1",
    },
    "NATS JetStream": {**binary("ce-"), "Nats-Msg-Id": b"x"},
    "Eventarc, mixed case": binary("Ce-"),
    "HTTP, percent-encoded": binary(
        "ce-", subject=SUBJECT.replace("-", "%2D"), source="https%3A%2F%2Fhr.example.org/t%65ams"
    ),
    "HTTP, in quotation marks": binary("ce-", time=f'"{TIME}"', id='"order\\-42"'),
    "HTTP, a per cent that is none": binary("ce-", extension="100 % of %zz"),
    "MassTransit's media type around it": structured(headers={"content-type": "application/vnd.masstransit+json"}),
    "Azure Event Grid": structured(time="2031-04-01T09:30:00.1234567Z", dataversion="1.0"),
    "KEDA and Knative's offsets": structured(knativekafkapartition="0", knativekafkaoffset=42),
    "extensions of every type": structured(
        a=7, b=True, c="AQI=", d=TIME, e=None, f={"a": 1}, g=[1], Mixed="x", h_i="y"
    ),
    "a trace of zeros": structured(traceparent=f"00-{'0' * 32}-{'0' * 16}-00"),
    "a trace that is none": structured(traceparent=7, tracestate=["a=b"]),
    "Postgres, an offset of hours": structured(time="2031-04-01 09:30:00+00"),
    "Postgres, in another zone": structured(time="2031-04-01 11:30:00.000000+02"),
    "a space before the zone": structured(time="2031-04-01 09:30:00 +0000"),
    "the zone's name": structured(time="2031-04-01 09:30:00 UTC"),
    "spaces around a time": structured(time="\t2031-04-01T09:30:00Z "),
    "small letters in a time": structured(time="2031-04-01t09:30:00z"),
    "a comma in a time": structured(time="2031-04-01T09:30:00,5Z"),
    "picoseconds": structured(time="2031-04-01T09:30:00.000000000001Z"),
    "spaces around a UUID": structured(subject=f" {SUBJECT}\n"),
    "a URN in capitals": structured(subject=f"URN:UUID:{SUBJECT.upper()}"),
    "C#, a UUID in parentheses": structured(subject=f"({SUBJECT})"),
    "Base64 in lines": structured(data=..., data_base64=in_base64()[:76] + "\r\n" + in_base64()[76:]),
    "Base64 without padding": structured(data=..., data_base64=in_base64(DATA | {"run_at": None}).rstrip("=")),
    "Base64 in the alphabet of URLs": structured(
        data=..., data_base64=in_base64().translate(str.maketrans("+/", "-_"))
    ),
    "UTF-16": {"event": json.dumps(EVENT).encode("utf-16")},
    "a key twice": {"event": b'{"id": "order-41", ' + json.dumps(EVENT).encode()[1:]},
    "NaN beside": {"event": json.dumps(EVENT).encode()[:-1] + b', "x": NaN}'},
    "a line break behind it": {"event": json.dumps(EVENT, indent=2).encode() + b"\r\n"},
    "RabbitMQ, in capitals": binary("CLOUDEVENTS:"),
    "Knative Broker, binary": binary("ce-", knativebrokerttl="254", knativearrivaltime=TIME),
    "an offset without minutes": structured(time="2031-04-01T09:30:00+00"),
    "an unknown local offset": structured(time="2031-04-01T09:30:00-00:00"),
    "the farthest offset": structured(time="2031-04-01T23:30:00+14:00"),
    "more decimals than anybody needs": structured(time=f"2031-04-01T09:30:00.{'0' * 24}Z"),
    "a run with a point": structured(run=1.0),
    "a run as a text with zeros": binary("ce_", run="01"),
    "infinity in an unknown field": {"event": json.dumps(EVENT).encode()[:-1] + b', "x": 1e400}'},
    "half a pair in an unknown field": {"event": json.dumps(EVENT).encode()[:-1] + b', "x": "\\ud83d"}'},
    "a NUL in an unknown field and its name": {"event": json.dumps(EVENT).encode()[:-1] + b', "x\\u0000": "\\u0000"}'},
    "UTF-16 without a mark": {"event": json.dumps(EVENT).encode("utf-16-be")},
    "UTF-32": {"event": json.dumps(EVENT).encode("utf-32")},
    "two byte order marks": {"event": b"\xef\xbb\xbf" * 2 + json.dumps(EVENT).encode()},
    "Base64 of UTF-16": structured(data=..., data_base64=base64.b64encode(json.dumps(DATA).encode("utf-16")).decode()),
    "a charset that it is not in": structured(datacontenttype="application/json; charset=utf-16"),
    "a problem's media type": structured(datacontenttype="application/problem+json"),
    "ten thousand extensions": {"event": json.dumps(EVENT | {f"e{at}": at for at in range(10_000)}).encode()},
    "an attribute under two prefixes": {**binary("ce_"), "ce-id": b"order-42"},
    "the data as an attribute": {**binary("ce_"), "ce_data": b"{}"},
}

REFUSED: Final[dict[str, tuple[Fields, str]]] = {
    "a batch of one": (
        {"event": json.dumps([EVENT]).encode()},
        "event: must be one CloudEvents object in JSON, and is a",
    ),
    "a batch, by its type": (
        {"data": json.dumps([EVENT, EVENT]).encode(), "content-type": b"application/cloudevents-batch+json"},
        "event: must be one CloudEvents object in JSON, and is a list; write each event of a batch as an entry",
    ),
    "an empty batch": ({"event": b"[]"}, "event: must be one CloudEvents object"),
    "a number": ({"event": b"7"}, "event: must be one CloudEvents object in JSON, and is no object"),
    "version 0.3": (structured(specversion="0.3"), "specversion: must be '1.0'"),
    "version 1.0.2": (structured(specversion="1.0.2"), "specversion: must be '1.0'"),
    "a version's number": (structured(specversion=1.0), "specversion: must be '1.0'"),
    "MQTT, names without a prefix": (binary(""), "type: is missing"),
    "names in capitals": ({"event": json.dumps({k.upper(): v for k, v in EVENT.items()}).encode()}, "type: is missing"),
    "JavaScript, milliseconds since 1970": (structured(time=1_933_000_000_000), "time: must be a time"),
    "Java, a zone's name": (structured(time="2031-04-01T09:30:00Z[UTC]"), "time: must be a time"),
    "a date of weeks": (structured(time="2031-W14-2T09:30:00Z"), "time: must be a time"),
    "a date of days": (structured(time="2031-091T09:30:00Z"), "time: must be a time"),
    "a day alone": (structured(time="2031-04-01"), "time: must say its time zone"),
    "the day after the last hour": (structured(time="2031-04-01T24:00:00Z"), "time: must be a time"),
    "a year of six digits": (structured(time="+002031-04-01T09:30:00Z"), "time: must be a time"),
    "MySQL's zero": (structured(time="0000-00-00T00:00:00Z"), "time: must be a time"),
    "Windows' zero": (structured(time="1601-01-01T00:00:00Z"), "time: is not between the years"),
    "C#, the greatest time": (structured(time="9999-12-31T23:59:59.9999999Z"), "time: is not between the years"),
    "a leap second in between": (structured(time="2031-04-01T09:30:60Z"), "time: has the second 60"),
    "a zone's place": (structured(time="2031-04-01T09:30:00 Europe/Berlin"), "time: must be a time"),
    ".NET's old dates": (structured(time="/Date(1933000000000)/"), "time: must be a time"),
    "Mongo's dates": (structured(time={"$date": TIME}), "time: must be a time"),
    "protobuf's timestamps": (structured(time={"seconds": 1}), "time: must be a time"),
    "a time of HTTP": (structured(time="Tue, 01 Apr 2031 09:30:00 GMT"), "time: must be a time"),
    "a basic time": (structured(time="20310401T093000Z"), "time: must be a time"),
    "C#, a local time": (structured(time="2031-04-01T09:30:00.0000000"), "time: must say its time zone"),
    "a run that is true": (structured(run=True), "run: must be a whole number"),
    "a run that is false": (structured(run=False), "run: must be a whole number"),
    "a run of the sender's": (structured(run="two"), "run: must be a whole number"),
    "data in both forms": (structured(data_base64=in_base64()), "data_base64: the event has data too"),
    "Go, a text for data": (structured(data=json.dumps(DATA)), "data: must be a JSON object"),
    "Avro": (structured(datacontenttype="application/avro"), "datacontenttype: must be a JSON media type"),
    "protobuf, binary": (binary("ce_", content_type={"content-type": "application/protobuf"}), "datacontenttype: must"),
    "XML, binary": (binary("ce_", data=b"<data/>"), "data: Invalid JSON"),
    "Confluent's frame": (
        {"event": b"\0\0\0\0\1" + json.dumps(EVENT).encode()},
        "event: Invalid JSON: expected value at line 1 column 1; it begins with a schema registry's frame: set",
    ),
    "Confluent's frame, binary": (
        binary("ce_", data=b"\0\0\0\0\1" + json.dumps(DATA).encode()),
        "data: Invalid JSON: expected value at line 1 column 1; it begins with a schema registry's frame: set",
    ),
    "gzip": (
        {"event": gzip.compress(json.dumps(EVENT).encode())},
        "event: Invalid JSON: expected value at line 1 column 1; it is compressed by gzip: send it as it is",
    ),
    "gzip in Base64": (
        structured(data=..., data_base64=base64.b64encode(gzip.compress(json.dumps(DATA).encode())).decode()),
        "data_base64: Invalid JSON: expected value at line 1 column 1; it is compressed by gzip",
    ),
    "XML": ({"event": b"<event/>"}, "event: Invalid JSON: expected value at line 1 column 1; it is XML: send JSON"),
    "MessagePack": ({"event": b"\x87\xa2id\xa1x"}, "event: Invalid JSON"),
    "Java's serialization": ({"event": b"\xac\xed\0\5sr"}, "event: Invalid JSON"),
    "Python's dictionaries": ({"event": repr(EVENT).encode()}, "event: Invalid JSON"),
    "a NUL behind it": ({"event": json.dumps(EVENT).encode() + b"\0"}, "event: Invalid JSON"),
    "two events in one": ({"event": json.dumps(EVENT).encode() * 2}, "event: Invalid JSON"),
    "a depth of 200,000": ({"event": b'{"data":' * 200_000 + b"1" + b"}" * 200_000}, "event: Invalid JSON"),
    "a number of 5,000 digits": (
        {"event": json.dumps(EVENT).encode()[:-1] + b', "x": ' + b"9" * 5_000 + b"}"},
        "event: Invalid JSON",
    ),
    "Event Grid's own schema": (
        {"event": json.dumps({"eventType": EVENT["type"], "eventTime": TIME, "data": DATA}).encode()},
        "event: is an event of Azure Event Grid's own schema; choose its CloudEvents schema",
    ),
    "EventBridge's own envelope": (
        {"event": json.dumps({"detail-type": EVENT["type"], "detail": DATA, "source": "hr"}).encode()},
        "event: is an event of Amazon EventBridge; have an input transformer write a CloudEvent",
    ),
    "SNS around it": (
        {"event": json.dumps({"Type": "Notification", "Message": json.dumps(EVENT)}).encode()},
        "event: is a notification of Amazon SNS around the event; turn on raw message delivery",
    ),
    "Pub/Sub around it": (
        {"event": json.dumps({"message": {"data": in_base64(EVENT)}, "subscription": "s"}).encode()},
        "event: is a push of Google Pub/Sub around the event; turn on payload unwrapping",
    ),
    "Kafka Connect's schema around it": (
        {"event": json.dumps({"schema": {}, "payload": EVENT}).encode()},
        "event: is Kafka Connect's schema around the event; set its converter's schemas.enable=false",
    ),
    "SQS and S3 around it": (
        {"event": json.dumps({"Records": [{"body": json.dumps(EVENT)}]}).encode()},
        "event: is a batch of an AWS service; write the event of each record as an entry of its own",
    ),
    "Debezium's change": (
        {"event": json.dumps({"before": None, "after": DATA, "op": "c", "source": {}}).encode()},
        "event: is a change of Debezium; have its outbox event router write the event",
    ),
    "Kafka Connect's schema around the data": (
        binary("ce_", data=json.dumps({"schema": {}, "payload": DATA}).encode()),
        "data.organization_id: is missing",
    ),
    "a text for an event": ({"event": json.dumps(json.dumps(EVENT)).encode()}, "event: must be one CloudEvents object"),
    "a number for an ID": (structured(id=42), "id: must be a string"),
    "a list for a source": (structured(source=[]), "source: must be a string"),
    "a longer idempotency key": (
        structured(idempotencykey="k" * 256),
        "idempotencykey: is longer than 255; shorten it",
    ),
    "a number for an idempotency key": (structured(idempotencykey=5), "idempotencykey: must be a string"),
    "a run above Postgres' integers": (structured(run=2**31), "run: must be 2147483647 or less"),
    "a run without end": (
        {"event": json.dumps(EVENT).encode()[:-1] + b', "run": 1e400}'},
        "run: must be a finite number",
    ),
    "another version's type": (structured(type="teamfit.job.requested.v2"), "type: names no event of this pipeline"),
    "Base64 of nothing": (structured(data=..., data_base64=""), "data_base64: Invalid JSON"),
    "Base64 that is a list": (structured(data=..., data_base64=[1]), "data_base64: is no Base64 text (it must be"),
    "a ULID for the job": (structured(subject="01ARZ3NDEKTSV4RRFFQ69G5FAV"), "subject: must be a UUID"),
    "Latin-1": ({"event": json.dumps(EVENT | {"source": "ü"}, ensure_ascii=False).encode("latin1")}, "event: Invalid"),
    "Watermill": (
        {"payload": json.dumps(EVENT).encode(), "metadata": b"\x80"},
        "event: the entry has no `event` field",
    ),
    "Redpanda Connect": ({"body": json.dumps(EVENT).encode()}, "event: the entry has no `event` field"),
    "Debezium": ({"key": b"{}", "value": json.dumps(EVENT).encode()}, "event: the entry has no `event` field"),
    "camel case in data": (
        structured(data={"organizationId": "acme", "teamId": "t", "requirements": "x"}),
        "data.organization_id: is missing; add it; data.team_id: is missing; add it",
    ),
    "seconds for run_at": (structured(data=DATA | {"run_at": 1_933_000_000}), "data.run_at: must be a time"),
    "milliseconds since 1970 as a text": (structured(time="1933000000000"), "time: must be a time"),
    "JavaScript, a date's text": (
        structured(time="Tue Apr 01 2031 09:30:00 GMT+0000 (Coordinated Universal Time)"),
        "time: must be a time",
    ),
    "Jackson's parts of a time": (structured(time=[2031, 4, 1, 9, 30]), "time: must be a time"),
    "Jackson's seconds": (structured(time=1933000000.5), "time: must be a time"),
    "an American time": (structured(time="4/1/2031 9:30:00 AM"), "time: must be a time"),
    "an offset of 24 hours": (structured(time="2031-04-01T09:30:00+24:00"), "time: must be a time"),
    "a day that is none": (structured(time="2031-02-30T09:30:00Z"), "time: must be a time"),
    "version 0.3's Base64": (
        structured(specversion="0.3", datacontentencoding="base64", data=in_base64()),
        "specversion: must be '1.0'",
    ),
    "version 0.3's Base64 in 1.0": (
        structured(datacontentencoding="base64", data=in_base64()),
        "data: must be a JSON object",
    ),
    "a text in Base64": (
        structured(data=..., data_base64=in_base64(json.dumps(DATA))),
        "data: must be a JSON object",
    ),
    "zlib in Base64": (
        structured(data=..., data_base64=base64.b64encode(b"\x78\x9c\x03").decode()),
        "data_base64: Invalid JSON",
    ),
    "protobuf, structured": (
        {"event": b"\x0a\x05order", "content-type": b"application/cloudevents+protobuf"},
        "event: Invalid JSON",
    ),
    "bytes of anything": (structured(datacontenttype="application/octet-stream"), "datacontenttype: must be"),
    "a list of wishes": (structured(data=DATA | {"requirements": ["a"]}), "data.requirements: must be a string"),
    "a team's number": (structured(data=DATA | {"team_id": 7}), "data.team_id: must be a string"),
    "a GUID in Base64": (
        structured(subject=base64.b64encode(UUID(SUBJECT).bytes).decode()),
        "subject: must be a UUID",
    ),
    "a UUID as a number": (structured(subject=UUID(SUBJECT).int), "subject: must be a UUID"),
    "a path to the job": (structured(subject=f"jobs/{SUBJECT}"), "subject: must be a UUID"),
    "half a pair and the other half later": (
        {"event": json.dumps(EVENT).replace("An hour", "\\ud83d x \\ude00").encode()},
        "data.requirements: holds text that is not valid Unicode",
    ),
    "CESU-8": (
        {"event": json.dumps(EVENT).encode().replace(b"An hour", b"\xed\xa0\xbd\xed\xb8\x80")},
        "data.requirements: holds text that is not valid Unicode",
    ),
    "UTF-8 that is overlong": (
        {"event": json.dumps(EVENT).encode().replace(b"hr.example", b"\xc0\xaf")},
        "event: Invalid JSON",
    ),
    "a comment before it": ({"event": b"// hi\n" + json.dumps(EVENT).encode()}, "event: Invalid JSON"),
    "a comma too many": ({"event": json.dumps(EVENT).encode()[:-1] + b",}"}, "event: Invalid JSON"),
    "the data alone, as Dapr's raw payload": ({"event": json.dumps(DATA).encode()}, "type: is missing"),
    "an order's number for the job": (structured(subject="order-42"), "subject: must be a UUID"),
    "C#, a UUID never set": (structured(subject=str(UUID(int=0))), "subject: is a UUID that names nothing"),
}


def read(fields: Fields) -> JobRequested:
    """Read an entry as a stage does."""
    entry = decode_entry(b"1-1", {name.encode(): value for name, value in fields.items()})
    event = parse_event(entry.value, dict(entry.headers), written_at=WRITTEN_AT)
    assert isinstance(event, JobRequested)
    return event


@pytest.mark.parametrize("name", TAKEN)
def test_what_an_sdk_writes_is_taken(name: str) -> None:
    """It is this request, of this job, at the time that it says or the entry's; and reads the same again."""
    event = read(TAKEN[name])
    assert (str(event.subject), event.id, event.run) == (SUBJECT, "order-42", 1)
    assert event.data.model_dump(exclude_none=True) == DATA
    assert event.source == ("unknown" if "left out" in name else EVENT["source"])
    assert event.time.replace(second=0, microsecond=0) in {datetime.fromisoformat(TIME), WRITTEN_AT}
    assert parse_event(event.encode()) == event


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused_by_field(name: str) -> None:
    """The sentence begins with the field, and says what to write."""
    fields, says = REFUSED[name]
    with pytest.raises(InvalidEvent) as refused:
        read(fields)
    assert str(refused.value).startswith(says)
