"""Events as upstream services send them: what is taken, and what is refused by the name of its field."""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from infra.errors import InvalidEvent
from streams.jobs.events import JobRequested, parse_event
from streams.redis.entry import decode_entry
from tests.hostile import HOSTILE_NUMBERS, HOSTILE_TEXTS, HOSTILE_TIMES

CASES = sorted((Path(__file__).parent / "event_cases").glob("*.json"))
SUBJECT = "0f9b9ad4-6f2c-4b0e-9a51-0d2d8e1c7a11"
WRITTEN_AT = datetime(2031, 4, 1, 9, 0, tzinfo=UTC)
DATA = {"organization_id": "acme", "team_id": "acme-platform", "requirements": "An hour outdoors for 9 people"}
EVENT = {
    "specversion": "1.0",
    "type": "teamfit.job.requested.v1",
    "id": "order-42",
    "source": "hr-service",
    "subject": SUBJECT,
    "time": "2031-04-01T09:30:00Z",
    "data": DATA,
}
ABSENT = ...


def short(value: object) -> str:
    """Return a name for a case that any terminal shows."""
    return ascii(value)[:40]


def with_fields(fields: Mapping[str, Any]) -> bytes:
    """Return the event with some fields changed; a dotted name is one of `data`."""
    event: dict[str, Any] = {**EVENT, "data": dict(DATA)}
    for name, value in fields.items():
        place, _, inner = name.rpartition(".")
        target = event[place] if place else event
        target[inner] = value
        if value is ABSENT:
            del target[inner]
    return json.dumps(event).encode()


def read(raw: bytes | None, headers: Mapping[str, bytes] | None = None) -> JobRequested:
    """Read a request that was written at a known time."""
    event = parse_event(raw, headers or {}, written_at=WRITTEN_AT)
    assert isinstance(event, JobRequested)
    return event


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_case_of_a_real_sender_ends_as_expected(path: Path) -> None:
    """Each file says what becomes of its event: accepted, or refused by the name of a field."""
    case = json.loads(path.read_text().replace("@UUID@", str(uuid4())))
    raw = json.dumps(case["event"]).encode()
    if case["expected"].startswith("accepted"):
        event = read(raw)
        assert event.time == (WRITTEN_AT if "time" not in case["event"] else datetime(2031, 4, 1, 9, 30, tzinfo=UTC))
        return
    with pytest.raises(InvalidEvent) as refused:
        read(raw)
    named = case["expected"].split("names ")[1].split(".")[0]
    assert str(refused.value).startswith(f"{named}: ")


DAPR = {
    "datacontenttype": "application/json",
    "pubsubname": "pubsub",
    "topic": "job-requests",
    "traceid": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "",
    "expiration": None,
}


@pytest.mark.parametrize(
    "fields",
    [
        DAPR,
        {"datacontenttype": "application/json", "dataschema": None, "time": "2031-04-01T09:30:00.123456789Z"},
        *[{name: None} for name in ("datacontenttype", "time", "source", "run", "traceparent", "specversion")],
        {"data.run_at": None, "extension": None},
        *[
            {"datacontenttype": media_type}
            for media_type in (
                "application/json",
                "application/json; charset=utf-8",
                "application/json;charset=UTF-8 ",
                'Application/JSON; charset="utf-8"; profile=x',
                "text/json",
                "application/cloudevents+json",
                "application/vnd.acme.request.v1+json",
                "APPLICATION/VND.X+JSON",
                "application/vnd.x+json; charset=utf-8",
                'application/ld+json; profile="http://www.w3.org/ns/activitystreams"',
                "application/x-json",
                "text/X-JSON;charset=utf-8",
                "application/json;",
                "application/json;\r\n charset=utf-8",
                "\tapplication/json\t",
            )
        ],
        {"source": "s" * 2_048},
        {"source": "/subscriptions/\N{SNOWMAN}"},
        {"id": "i" * 512},
        {"subject": SUBJECT.upper()},
        {"subject": f"urn:uuid:{SUBJECT}"},
        {"data.run_at": "2020-01-01T00:00:00+23:59"},
        {"time": "2031-04-01T09:30:00-23:59"},
        {"time": "1970-01-01T00:00:00Z"},
        {"time": "1970-01-02T00:00:00+23:59"},
        {"time": "1969-12-31T20:00:00-04:00"},
        {"time": "2199-12-31T23:59:59.999999Z"},
        *[
            {name: blank}
            for name in ("datacontenttype", "time", "idempotencykey", "traceparent", "tracestate")
            for blank in ("", " \t")
        ],
        {"run": "1"},
    ],
    ids=short,
)
def test_what_real_senders_write_is_taken(fields: Mapping[str, Any]) -> None:
    """Null is absent, any JSON media type is JSON, extensions are ignored; and what was read reads the same again."""
    event = read(with_fields(fields))
    assert event.data.team_id == "acme-platform"
    assert event.time.tzinfo is UTC
    assert parse_event(event.encode()) == event


@pytest.mark.parametrize(
    "zero", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00", "0001-01-01t00:00:00.000z", None]
)
def test_a_time_that_was_never_set_is_the_entrys(zero: str | None) -> None:
    """Go's zero value is no time; as `run_at` it means now."""
    event = read(with_fields({"time": zero, "data.run_at": zero}))
    assert (event.time, event.data.run_at) == (WRITTEN_AT, None)


REFUSED: list[tuple[str, Any]] = [
    ("specversion", "0.3"),
    ("specversion", 1.0),
    ("type", ABSENT),
    ("type", None),
    ("type", "com.dapr.event.sent"),
    *[("id", value) for value in (ABSENT, None, "", "i" * 513, "a\0b", "\ud800", 7)],
    *[("source", value) for value in ("", "s" * 2_049, "a\0b", "\udfff")],
    *[("subject", value) for value in (ABSENT, None, "order-42", "")],
    *[
        ("time", value)
        for value in (
            "yesterday",
            "2031-04-01T09:30:00",
            "0001-01-01T00:00:01Z",
            "0001-01-01T00:00:01+23:59",
            "9999-12-31T23:59:59-23:59",
            "2200-01-01T00:00:00Z",
            "2199-12-31T23:59:59-00:01",
            "1969-12-31T23:59:59.999Z",
            "1970-01-01T00:00:01+14:00",
            1e300,
        )
    ],
    *[("run", value) for value in (0, -1, 2**31, "x", 1.5)],
    *[
        ("datacontenttype", value)
        for value in (
            *("application/xml", "text/plain; x=json", "json", "*/json", "a/json\nb", "application/jsonp", 5),
            *("application/x-ndjson", "application/json, text/json", f"application/json; {'x' * 256}"),
        )
    ],
    *[("data", value) for value in (ABSENT, None, "{}", json.dumps(DATA), 7)],
    ("data", []),
    *[("data.organization_id", value) for value in (ABSENT, None, "", "o" * 65, "a\0b", "\ud83d")],
    *[("data.team_id", value) for value in ("", "a\0b", "\ud83d")],
    *[("data.requirements", value) for value in ("", " \n ", "a\0b", "\ud83d", "x" * 10_001, 7)],
    *[
        ("data.run_at", value)
        for value in ("tomorrow", "2031-01-01T00:00:00", "0001-01-01T00:00:00.1+23:59", "9999-12-31T23:59:59-01:00")
    ],
]


@pytest.mark.parametrize(("field", "value"), REFUSED, ids=short)
def test_what_cannot_be_kept_is_refused_by_field(field: str, value: object) -> None:
    """The message begins with the field, also for half a surrogate pair, which is JSON and no text."""
    with pytest.raises(InvalidEvent) as refused:
        read(with_fields({field: value}))
    told = str(refused.value)
    assert told.startswith(f"{field}: "), told
    # In our words: no pattern, no name of a class.
    assert not any(one in told for one in ("^", "Input", "String", "Value error", "Requested", "discriminator")), told


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00+00:00"),
        ("2016-12-31t23:59:60.25z", "2017-01-01T00:00:00.250000+00:00"),
        ("2016-12-31T15:59:60-08:00", "2017-01-01T00:00:00+00:00"),
        ("2017-01-01 05:29:60+05:30", "2017-01-01T00:00:00+00:00"),
        ("2031-06-30T23:59:60Z", "2031-07-01T00:00:00+00:00"),
        ("2016-12-31T23:59:60+01:00", None),
        ("2016-06-15T23:59:60Z", None),
        ("2016-12-31T12:30:60Z", None),
        ("2016-12-31T23:59:61Z", None),
        ("2016-12-31T23:59:60", None),
        ("2199-12-31T23:59:60Z", None),
        ("9999-12-31T23:59:60Z", None),
        ("1969-12-31T23:59:60Z", "1970-01-01T00:00:00+00:00"),
    ],
)
@pytest.mark.parametrize("field", ["time", "data.run_at"])
def test_a_leap_second_is_the_second_after_it(field: str, written: str, read_as: str | None) -> None:
    """One comes at the end of a month in UTC alone, in whatever zone it is written (RFC 3339)."""
    if read_as is None:
        with pytest.raises(InvalidEvent, match=field):
            read(with_fields({field: written}))
        return
    event = read(with_fields({field: written}))
    moment = event.time if field == "time" else event.data.run_at
    assert moment is not None
    assert moment.isoformat() == read_as


def test_a_hostile_value_in_any_place_is_taken_or_refused_by_field() -> None:
    """What is taken reads the same again; what is refused names its place, or the event if it is no JSON any more."""
    places = [*EVENT, "run", "datacontenttype", "traceparent", "idempotencykey", "extension"]
    places += [f"data.{name}" for name in (*DATA, "run_at", "extension")]
    for place, value in product(places, [*HOSTILE_TEXTS, *HOSTILE_NUMBERS, *HOSTILE_TIMES]):
        try:
            event = read(with_fields({place: value}))
        except InvalidEvent as refused:
            named = str(refused).partition(": ")[0]
            assert named in {place, "event", "data.organization_id"}, (place, value, refused)  # noqa: PT017 - either way
        else:
            assert parse_event(event.encode()) == event


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (None, "event"),
        (b"", "event"),
        (b"{", "event"),
        (b"[]", "event"),
        (b'"text"', "event"),
        (b"null", "event"),
        (b"\xff", "event"),
        (b"[" * 100_000, "event"),
        (b'{"a":' * 100_000, "event"),
        (with_fields({"data_base64": "e30="}), "data_base64"),
        (with_fields({"data": ABSENT, "data_base64": "no base64"}), "data_base64"),
        (with_fields({"data": ABSENT, "data_base64": 7}), "data_base64"),
        (with_fields({"data": ABSENT, "data_base64": "ew=="}), "data_base64"),
        (with_fields({"data": ABSENT, "data_base64": "e30="}), "data.organization_id"),
    ],
    ids=short,
)
def test_bytes_that_are_no_event_are_refused(raw: bytes | None, field: str) -> None:
    """Whatever the bytes are, the message says where to look."""
    with pytest.raises(InvalidEvent) as refused:
        read(raw)
    assert str(refused.value).startswith(f"{field}: ")


def test_data_in_base64_is_the_json_that_it_holds() -> None:
    """SDKs write `data_base64` when they are given bytes; a byte order mark, which .NET writes, is skipped."""
    encoded = base64.b64encode(b"\xef\xbb\xbf" + json.dumps(DATA).encode()).decode()
    raw = b"\xef\xbb\xbf" + with_fields({"data": ABSENT, "data_base64": encoded})
    assert read(raw).data == read(with_fields({})).data


ATTRIBUTES = {name: str(value).encode() for name, value in EVENT.items() if name != "data"}


@pytest.mark.parametrize("prefix", ["ce_", "ce-", "CE_", "h:ce_", "h:Ce-"])
@pytest.mark.parametrize("content_type", [{}, {b"content-type": b"application/json; charset=utf-8"}], ids=short)
@pytest.mark.parametrize("value", [b"data", b"event"])
def test_the_binary_mode_of_an_entry_is_read(prefix: str, content_type: dict[bytes, bytes], value: bytes) -> None:
    """Attributes in fields, or headers, of their own beside the data say the same as the structured event."""
    fields = {f"{prefix}{name}".encode(): text for name, text in ATTRIBUTES.items()}
    entry = decode_entry(b"1-1", {b"key": SUBJECT.encode(), **fields, **content_type, value: json.dumps(DATA).encode()})
    event = read(entry.value, dict(entry.headers))
    expected = read(with_fields({}))
    assert event.model_copy(update={"datacontenttype": "application/json"}) == expected
    assert event.subject == UUID(SUBJECT)


@pytest.mark.parametrize(
    ("changed", "value", "field"),
    [
        ({"id": b"\xff"}, b"{}", "id"),
        ({"id": b""}, b"{}", "id"),
        ({"source": b"a\0b"}, json.dumps(DATA).encode(), "source"),
        ({"time": b"soon"}, json.dumps(DATA).encode(), "time"),
        ({}, b"", "data"),
        ({}, b"{", "data"),
        ({}, b'"text"', "data"),
        ({"datacontenttype": b"text/plain"}, json.dumps(DATA).encode(), "datacontenttype"),
    ],
)
def test_a_wrong_attribute_of_the_binary_mode_is_refused_by_field(
    changed: dict[str, bytes], value: bytes, field: str
) -> None:
    """As in the structured mode."""
    headers = {f"ce_{name}": text for name, text in {**ATTRIBUTES, **changed}.items()}
    with pytest.raises(InvalidEvent) as refused:
        read(value, headers)
    assert str(refused.value).startswith(f"{field}: ")


def test_a_structured_event_stays_one_whatever_headers_it_has() -> None:
    """Its media type says so, or there are no attributes among the headers; Dapr writes it into `data`."""
    raw = with_fields({"id": "structured"})
    for headers in ({"content-type": b"application/cloudevents+json", "ce_id": b"other"}, {"ce_vendor": b"x"}):
        assert read(raw, headers).id == "structured"
    entry = decode_entry(b"1-1", {b"data": raw})
    assert read(entry.value, dict(entry.headers)).id == "structured"
