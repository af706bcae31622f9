"""The layout of an entry."""

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.redis.entry import decode_entry, encode_entry, encode_flat


def flat(fields: dict[bytes, bytes]) -> list[bytes]:
    """Fields as the server sends them."""
    return [part for pair in fields.items() for part in pair]


@example(key=None, value=b"x", headers={}, milliseconds=129_778)  # 129777.99 in floating point
@given(
    key=st.none() | st.binary(),
    value=st.binary(min_size=1),
    headers=st.dictionaries(st.text(), st.binary()),
    milliseconds=st.none() | st.integers(min_value=1, max_value=10**14),
)
def test_what_is_encoded_decodes_to_the_same(
    key: bytes | None, value: bytes, headers: dict[str, bytes], milliseconds: int | None
) -> None:
    """Key, value, headers and timestamp survive the round trip, whatever bytes they hold."""
    timestamp = None if milliseconds is None else milliseconds / 1000
    fields = encode_flat(key, value, headers, timestamp)
    assert fields == flat(encode_entry(key, value, headers, timestamp))
    entry = decode_entry(b"5000-0", fields)
    assert (entry.key, entry.value, dict(entry.headers)) == (key, value, headers)
    assert entry.timestamp == pytest.approx(5.0 if timestamp is None else timestamp, abs=0.0001)


_NAMES = st.one_of(
    st.binary(),
    st.sampled_from([b"event", b"key", b"ts", b"data", b"h:", b"ce_", b"Content-Type"]),
    st.builds(lambda prefix, rest: prefix + rest, st.sampled_from([b"h:", b"ce_", b"ce-"]), st.binary()),
)
_VALUES = st.one_of(st.binary(), st.integers().map(lambda number: str(number).encode()))


@example([(b"h:\x00", b"1"), (b"h:\xff", b"2"), (b"ts", b"999999999999999")], 2**64 - 1)
@given(st.lists(st.tuples(_NAMES, _VALUES)), st.integers(0, 2**64 - 1))
def test_decoding_never_fails(fields: list[tuple[bytes, bytes]], written_ms: int) -> None:
    """Whatever somebody wrote by hand becomes an entry, with a time that Python has a date for."""
    entry = decode_entry(b"%d-1" % written_ms, [part for pair in fields for part in pair])
    assert datetime.fromtimestamp(entry.timestamp, UTC).year >= 1970
    again = encode_flat(entry.key, entry.value, entry.headers)
    assert dict(decode_entry(b"1-1", again).headers) == dict(entry.headers), "it can be written again"


def test_no_value_and_an_empty_value_are_the_same() -> None:
    """None is written as an empty `event`, since an entry needs a field; both read back as None."""
    assert encode_entry(None, None) == {b"event": b""}
    assert decode_entry(b"1-0", [b"event", b""]).value is None
    assert decode_entry(b"1-0", [b"other", b"field"]).value is None


def test_the_time_of_an_entry_is_in_its_id_unless_it_says_otherwise() -> None:
    """An entry without `ts`, or with a `ts` that is no number, has the time at which the server got it."""
    assert decode_entry(b"1700000000250-3", []).timestamp == 1_700_000_000.25
    assert decode_entry(b"1700000000250-3", [b"ts", b"yesterday"]).timestamp == 1_700_000_000.25
    assert decode_entry(b"1700000000250-3", [b"ts", b"1500"]).timestamp == 1.5


def test_headers_may_be_text_or_pairs() -> None:
    """Headers are taken as a mapping or as pairs, of bytes or of text."""
    expected = {b"event": b"v", b"h:a": b"1"}
    assert encode_entry(None, b"v", {"a": "1"}) == expected
    assert encode_entry(None, b"v", [("a", b"1")]) == expected
