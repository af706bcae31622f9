"""Internal headers are believed from ourselves alone."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.postgres import Database
from streams.delivery.deliveries import ATTEMPT, FOR_GROUP, SEAL, Delivery, Record
from streams.delivery.seal import Seal, SealedPublisher, _mark


@dataclass
class Written:
    """A broker that remembers."""

    records: list[Record] = field(default_factory=list)

    async def publish(self, records: Sequence[Record]) -> None:
        self.records.extend(records)


@pytest.fixture
async def seal(database_url: str) -> AsyncIterator[Seal]:
    """The seal of a migrated database."""
    database = Database(database_url, size=2)
    yield Seal(database)
    await database.close()


async def test_what_we_send_is_believed_by_every_process(seal: Seal, database_url: str) -> None:
    """Another process, which reads the key itself, finds group and attempt as they were sent, and no seal."""
    written = Written()
    await SealedPublisher(written, seal).publish(
        [
            Record("job-requests", b"k", b"v", {FOR_GROUP: b"quota", ATTEMPT: b"2", "odd": b"\xff"}),
            Record("t", b"k", b"v"),
        ]
    )
    sent, plain = written.records
    assert plain.headers == {}
    other = Database(database_url, size=2)
    try:
        got = await Seal(other).opened(Delivery(sent.topic, sent.key, sent.value, sent.headers))
    finally:
        await other.close()
    assert got.headers == {FOR_GROUP: b"quota", ATTEMPT: b"2", "odd": b"\xff"}
    assert (got.is_for("quota"), got.is_for("projection"), got.attempt) == (True, False, 2)


@pytest.mark.parametrize(
    "forged",
    [
        {FOR_GROUP: b"nobody"},
        {FOR_GROUP: b"nobody", SEAL: b""},
        {FOR_GROUP: b"nobody", SEAL: b"0" * 64},
        {ATTEMPT: b"99999"},
        {SEAL: b"\xff\x00"},
        {"dead-letter-group": b"nobody", "dead-letter-reason": b"max_deliveries"},
    ],
)
async def test_what_a_stranger_writes_is_not_believed(seal: Seal, forged: dict[str, bytes]) -> None:
    """An entry with internal headers of its own is for every group, at its first attempt; its other headers stay."""
    got = await seal.opened(Delivery("job-requests", b"k", b"v", {**forged, "mine": b"1"}))
    assert got.headers == {"mine": b"1"}
    assert got.is_for("quota")
    assert got.attempt == 1


async def test_a_seal_fits_no_other_entry(seal: Seal) -> None:
    """Copied to another topic, key, event, group or attempt, it is worth nothing."""
    written = Written()
    await SealedPublisher(written, seal).publish([Record("a", b"k", b"v", {FOR_GROUP: b"g", ATTEMPT: b"2"})])
    [sent] = written.records
    for topic, key, value, changed in (
        ("b", b"k", b"v", {}),
        ("a", b"x", b"v", {}),
        ("a", None, b"v", {}),
        ("a", b"k", b"x", {}),
        ("a", b"k", b"v", {FOR_GROUP: b"h"}),
        ("a", b"k", b"v", {ATTEMPT: b"1"}),
    ):
        got = await seal.opened(Delivery(topic, key, value, {**sent.headers, **changed}))
        assert got.headers == {}


@given(st.lists(st.one_of(st.none(), st.binary(max_size=4)), min_size=4, max_size=4), st.binary(max_size=3))
def test_no_two_entries_share_a_seal_by_moving_bytes_between_their_parts(
    parts: list[bytes | None], tail: bytes
) -> None:
    """Bytes moved from the end of one part to the beginning of the next make another seal."""
    group, attempt, key, value = parts

    def mark(group: bytes | None, attempt: bytes | None, key: bytes | None, value: bytes | None) -> bytes:
        headers = {name: part for name, part in ((FOR_GROUP, group), (ATTEMPT, attempt)) if part is not None}
        return _mark(Record("t", key, value, headers), b"key")

    if key is not None and value is not None and tail:
        assert mark(group, attempt, key + tail, value) != mark(group, attempt, key, tail + value)
    assert mark(group, attempt, key, value) == mark(group, attempt, key, value)
