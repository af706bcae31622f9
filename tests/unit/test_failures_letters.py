"""Reading dead letters, whatever they are."""

import base64
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.failures.handlers import HoldPolicy
from infra.errors import DependencyDown, InvalidEvent
from streams.delivery.dead_letters import dead_letter
from streams.delivery.deliveries import Delivery, Hold, Record
from streams.delivery.letters import read_dead_letter
from streams.jobs.events import JobId
from streams.jobs.facts import job_requested
from streams.redis.dead_letter import REASON_MAX_DELIVERIES, Burial

JOB = JobId(UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7"))
NOON = datetime(2031, 4, 15, 12, tzinfo=UTC)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def delivered(record: Record) -> Delivery:
    """What the failures stage is handed for a record written to `dead-letters`."""
    return Delivery(record.topic, record.key, record.value, record.headers)


def test_a_stages_dead_letter_tells_what_failed_where_and_why() -> None:
    """Whoever searches finds it by stage, error, job, organization and trace."""
    event = job_requested(job_id=JOB, organization_id="acme", team_id="red", requirements="fun", at=NOON, run=3)
    event = event.model_copy(update={"traceparent": TRACEPARENT})
    original = Delivery("job-requests", event.key, event.encode(), {"attempt": b"3", "lang": b"fi"})
    letter = read_dead_letter(delivered(dead_letter(original, group="quota", error=ValueError("no such thing"))))
    assert (letter.topic, letter.stage, letter.reason, letter.attempts) == ("job-requests", "quota", "given_up", 3)
    assert (letter.error_type, letter.error_message) == ("ValueError", "no such thing")
    assert "ValueError: no such thing" in (letter.traceback or "")
    assert (letter.job_id, letter.run, letter.organization_id) == (JOB, 3, "acme")
    assert (letter.event_id, letter.event_type) == (event.id, "teamfit.job.requested.v1")
    assert letter.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert (letter.key, letter.event) == (original.key, original.value)
    assert letter.headers == {"attempt": "3", "lang": "fi"}
    assert letter.failed_at is not None


def test_a_transports_dead_letter_is_read_by_the_same_names() -> None:
    """An entry that killed its worker too often is found like any other, with how often it was handed over."""
    why = Burial(
        topic="job-accepted",
        group="generation",
        entry_id="17-0",
        reason=REASON_MAX_DELIVERIES,
        error="delivered 6 times",
        deliveries=6,
        time=NOON,
    )
    letter = read_dead_letter(Delivery("dead-letters", str(JOB).encode(), b"\xff", why.headers()))
    assert (letter.stage, letter.reason, letter.error_type) == ("generation", "max_deliveries", "max_deliveries")
    assert (letter.error_message, letter.attempts, letter.failed_at) == ("delivered 6 times", 6, NOON)
    assert letter.job_id == JOB


def test_broken_json_gives_up_the_fields_that_can_be_made_out() -> None:
    """An event cut off in the middle is still found by its job and organization."""
    whole = job_requested(job_id=JOB, organization_id="acme", team_id="red", requirements="fun", at=NOON, run=2)
    letter = read_dead_letter(Delivery("dead-letters", None, whole.encode()[:-20]))
    assert (letter.job_id, letter.run, letter.organization_id) == (JOB, 2, "acme")
    assert letter.event_type == "teamfit.job.requested.v1"


DATA = {"organization_id": "acme", "team_id": "red", "requirements": "fun ~~~???>>>"}
EVENT = {"id": "e", "type": "teamfit.job.requested.v1", "subject": str(JOB), "run": 2, "data": DATA}
BARE = {name: value for name, value in EVENT.items() if name != "data"}
HEADERS = {f"ce_{name}": str(value).encode() for name, value in BARE.items()}
BASE64 = base64.b64encode(json.dumps(DATA).encode()).decode()


@pytest.mark.parametrize(
    ("event", "headers"),
    [
        (EVENT | {"data": json.dumps(DATA)}, {}),
        (EVENT | {"data": json.dumps(json.dumps(DATA))}, {}),
        (EVENT | {"data": [DATA]}, {}),
        (EVENT | {"data": {"organization_id": "acme"}, "data_base64": BASE64}, {}),
        (BARE | {"data_base64": BASE64.rstrip("=")}, {}),
        (BARE | {"data_base64": BASE64.replace("/", "_").replace("+", "-")}, {}),
        (BARE | {"data_base64": f" {BASE64[:20]}\r\n{BASE64[20:]}"}, {}),
        (BARE | {"data_base64": BASE64[:-6]}, {}),
        (BARE | {"organization_id": "acme"}, {}),
        ([EVENT], {}),
        (json.dumps(EVENT), {}),
        (json.dumps([EVENT]), {}),
        (json.dumps(EVENT).encode()[:-3], {}),
        (json.dumps(json.dumps(EVENT)).encode()[:-3], {}),
        (json.dumps(EVENT).encode() + b"}", {}),
        (json.dumps(EVENT).encode("utf-16"), {}),
        (DATA, HEADERS),
        (json.dumps(DATA), HEADERS),
        (json.dumps(DATA).encode()[:-3], HEADERS),
        (DATA | {"subject": "another", "id": "another"}, HEADERS),
        (DATA, HEADERS | {"ce_source": b"\xff"}),
    ],
)
def test_a_broken_event_is_found_by_its_fields(event: object, headers: dict[str, bytes]) -> None:
    """However it was broken, as senders break events."""
    raw = event if isinstance(event, bytes) else json.dumps(event).encode()
    letter = read_dead_letter(
        Delivery("dead-letters", None, raw, {**headers, "ce_specversion": b"1.0"} if headers else {})
    )
    found = (letter.job_id, letter.run, letter.organization_id, letter.event_id, letter.event_type)
    assert found == (JOB, 2, "acme", "e", "teamfit.job.requested.v1")


@pytest.mark.parametrize(
    ("written", "found"), [(42, "42"), (2**70, None), (True, None), (["acme"], None), (None, None)]
)
def test_an_organization_that_is_no_text(written: object, found: str | None) -> None:
    """A number is what it would be in quotes."""
    raw = json.dumps(EVENT | {"data": {"organization_id": written}}).encode()
    assert read_dead_letter(Delivery("dead-letters", None, raw)).organization_id == found


def test_the_same_entry_is_one_row_and_another_stage_another() -> None:
    """The row's ID follows from topic, stage, key and event, whatever the error and its time were."""
    original = Delivery("job-events", b"k", b"v", {})
    first = read_dead_letter(delivered(dead_letter(original, group="quota", error=ValueError("a"))))
    again = read_dead_letter(delivered(dead_letter(original, group="quota", error=KeyError("b"))))
    other = read_dead_letter(delivered(dead_letter(original, group="projection", error=ValueError("a"))))
    no_key = read_dead_letter(
        delivered(dead_letter(Delivery("job-events", None, b"v", {}), group="quota", error=ValueError("a")))
    )
    assert first.id == again.id
    assert len({first.id, other.id, no_key.id}) == 3


def test_events_in_binary_mode_are_told_apart_by_their_headers() -> None:
    """Many jobs may have the same data; the headers of a retry change nothing."""

    def identity(**headers: bytes) -> UUID:
        attributes = {"ce_specversion": b"1.0", "ce_type": b"t", **headers}
        return read_dead_letter(Delivery("dead-letters", None, b"{}", attributes)).id

    assert identity(ce_subject=b"a") == identity(ce_subject=b"a", attempt=b"2") != identity(ce_subject=b"b")


_FIELDS = st.dictionaries(
    st.sampled_from(["id", "type", "subject", "run", "data", "traceparent"]),
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists),
)
_EVENTS = st.binary() | _FIELDS.map(lambda fields: json.dumps(fields).encode()) | st.none()
_NAMES = (
    st.sampled_from(
        ["attempt", "traceparent", "other", *(f"dead-letter-{name}" for name in ("topic", "group", "reason", "error"))]
        + [f"dead-letter-{name}" for name in ("time", "deliveries", "traceback", "error-type")]
    )
    | st.text()
)


@given(event=_EVENTS, key=st.none() | st.binary(), headers=st.dictionaries(_NAMES, st.binary()))
def test_nothing_that_a_dead_letter_holds_raises(
    event: bytes | None, key: bytes | None, headers: dict[str, bytes]
) -> None:
    """Any bytes and headers make a row, with texts that Postgres takes and the original bytes as they were."""
    letter = read_dead_letter(Delivery("dead-letters", key, event, headers))
    assert (letter.event, letter.key) == (event, key)
    texts = [letter.topic, letter.stage, letter.reason, letter.error_type, letter.error_message, letter.traceback]
    texts += [letter.event_id, letter.event_type, letter.organization_id, letter.trace_id]
    for text in texts:
        assert "\0" not in (text or "")
        (text or "").encode()
    assert letter.attempts >= 1


def test_whatever_fails_the_last_stop_holds() -> None:
    """A dead letter that cannot be kept is neither lost nor sent round in a circle."""
    policy = HoldPolicy(max_attempts=1, base=timedelta(seconds=1), cap=timedelta(seconds=1))
    delivery = Delivery("dead-letters", None, None, {"attempt": b"99"})
    down = DependencyDown("postgres", "away")
    assert policy.outcome(down, delivery) == Hold(down)
    for error in (InvalidEvent("bad"), TimeoutError(), ValueError("bug")):
        outcome = policy.outcome(error, delivery)
        assert isinstance(outcome, Hold)
        assert outcome.error.__cause__ is error
