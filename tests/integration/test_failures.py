"""Keeping dead letters in a real database."""

import json
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from consumers.failures.handlers import Poison
from infra.clock import SystemClock
from infra.postgres import Database
from producers.replay.records import resend
from streams.delivery.dead_letters import ERROR_TYPE, dead_letter
from streams.delivery.deliveries import FOR_GROUP, Delivery, Record
from streams.delivery.failed_events import FailedEvents
from streams.delivery.letters import FailedEvent, read_dead_letter
from streams.jobs.events import JobFailed, JobId, parse_event
from streams.jobs.facts import job_requested
from streams.redis.dead_letter import (
    DEAD_LETTER_DELIVERIES,
    DEAD_LETTER_ERROR,
    DEAD_LETTER_GROUP,
    DEAD_LETTER_REASON,
    DEAD_LETTER_TIME,
    DEAD_LETTER_TOPIC,
    REASON_MAX_DELIVERIES,
)
from streams.redis.entry import decode_entry
from tests.conftest import Pool
from tests.hostile import HOSTILE_BYTES, HOSTILE_HEADER_NAMES

NOON = datetime(2031, 4, 15, 12, tzinfo=UTC)


@pytest.fixture
async def failures(database_url: str) -> AsyncIterator[FailedEvents]:
    """The stage's handler, on a pool of its own."""
    database = Database(database_url, size=2)
    yield FailedEvents(database, SystemClock())
    await database.close()


class Topics:
    """A broker that remembers what it was given."""

    def __init__(self) -> None:
        self.written: list[Record] = []

    async def publish(self, records: Sequence[Record]) -> None:
        self.written += records


def letter(
    event: bytes = b"not json",
    *,
    minutes: float | None = 0,
    error: str = "broken",
    attempt: int = 1,
    stage: bytes = b"quota",
    headers: dict[str, bytes] | None = None,
) -> FailedEvent:
    """A dead letter of one entry; `minutes` after noon, or not saying when."""
    extra = headers or {}
    if minutes is not None:
        extra = {**extra, DEAD_LETTER_TIME: (NOON + timedelta(minutes=minutes)).isoformat().encode()}
    return read_dead_letter(
        Delivery(
            "dead-letters",
            b"key",
            event,
            {
                DEAD_LETTER_TOPIC: b"job-requests",
                DEAD_LETTER_GROUP: stage,
                ERROR_TYPE: b"ValueError",
                DEAD_LETTER_ERROR: error.encode(errors="replace"),
                "attempt": str(attempt).encode(),
                **extra,
            },
        )
    )


async def test_any_entry_ends_in_a_row_that_gives_it_back(failures: FailedEvents, database: Pool) -> None:
    """Header names of any bytes, huge keys and any event are kept, and a replay sends exactly those bytes."""
    for name in HOSTILE_HEADER_NAMES:
        if name.decode(errors="surrogateescape").startswith(("dead-letter-", "attempt", "for-group")):
            continue
        for raw in (b"", *HOSTILE_BYTES):
            fields = {b"key": b"k" * 5_000 + raw[:100], b"event": raw, b"h:" + name: b"\xff\0" + name[:50]}
            entry = decode_entry(b"1-0", fields)
            given_up = Delivery("job-requests", entry.key, entry.value, dict(entry.headers))
            lost = dead_letter(given_up, group="quota", error=ValueError("\0\ud800"))
            await failures.keep_one(read_dead_letter(Delivery(lost.topic, lost.key, lost.value, lost.headers)))
            row = await database.fetchrow("DELETE FROM failed_events RETURNING *")
            assert row is not None
            again = resend(row["topic"], row["stage"], row["key"], row["event"], json.loads(row["headers"]))
            headers = {name: value for name, value in again.headers.items() if name != FOR_GROUP}
            assert (again.key, again.value, headers) == (entry.key, entry.value, dict(entry.headers))


async def test_a_letter_that_nothing_can_describe_is_kept_by_its_bytes(failures: FailedEvents, database: Pool) -> None:
    """The last resort writes what cannot be refused: a row without the fields that Postgres does not take."""
    await failures.keep_one(replace(letter(b"the bytes"), event_type="nul \0", job_id=uuid4()))
    row = await database.fetchrow("SELECT event, stage, topic, error_message, job_id FROM failed_events")
    assert row is not None
    assert (row["event"], row["stage"], row["topic"], row["job_id"]) == (b"the bytes", "quota", "job-requests", None)
    assert "no more could be kept than its bytes" in row["error_message"]


async def test_a_letter_keeps_its_bytes_and_headers(failures: FailedEvents, database: Pool) -> None:
    """What no text column takes is kept all the same: bytes as they were, headers as text or base64, texts mended."""
    raw = b'{"id": "a\\u0000b", "data": {"organization_id": "\xff\x00"}' + bytes(range(256))
    one = letter(raw, error="nul \0 and half \ud800", headers={"odd": b"\xff\x00", "plain": "ä".encode()})
    await failures.keep([one])
    row = await database.fetchrow("SELECT * FROM failed_events")
    assert row is not None
    assert (row["event"], row["key"], row["stage"], row["topic"]) == (raw, b"key", "quota", "job-requests")
    assert json.loads(row["headers"]) == {"attempt": "1", "odd": {"base64": "/wA="}, "plain": "ä"}
    assert row["error_message"] == "nul \N{REPLACEMENT CHARACTER} and half ?"
    assert (row["first_failed_at"], row["last_failed_at"], row["occurrences"]) == (NOON, NOON, 1)


async def test_a_redelivered_letter_changes_nothing(failures: FailedEvents, database: Pool) -> None:
    """The time on the letter tells that this failure is known, alone or among others."""
    await failures.keep([letter()])
    await failures.keep([letter(), letter(), letter(b"another")])
    rows = await database.fetch("SELECT occurrences FROM failed_events")
    assert [row["occurrences"] for row in rows] == [1, 1]


async def test_the_same_entry_failing_anew_counts_and_shows_its_latest_error(
    failures: FailedEvents, database: Pool
) -> None:
    """An entry that was replayed and failed again is one row with its history in numbers."""
    await failures.keep([letter(error="first")])
    await failures.keep([letter(minutes=2, error="third", attempt=3), letter(minutes=1, error="second", attempt=2)])
    await failures.keep([letter(error="first")])
    row = await database.fetchrow("SELECT * FROM failed_events")
    assert row is not None
    assert (row["occurrences"], row["error_message"], row["attempts"]) == (3, "third", 3)
    assert (row["first_failed_at"], row["last_failed_at"]) == (NOON, NOON + timedelta(minutes=2))


async def test_letters_out_of_order_keep_the_latest_error(failures: FailedEvents, database: Pool) -> None:
    """An older failure that is told of later counts, and moves only the first time."""
    await failures.keep([letter(minutes=5, error="late")])
    await failures.keep([letter(minutes=1, error="early")])
    row = await database.fetchrow("SELECT * FROM failed_events")
    assert row is not None
    assert (row["occurrences"], row["error_message"]) == (2, "late")
    assert row["first_failed_at"] == NOON + timedelta(minutes=1)


async def test_a_letter_without_a_time_counts_once(failures: FailedEvents, database: Pool) -> None:
    """Written by hand, it is kept under the time of its reading, and reading it again is no new failure."""
    for _ in range(3):
        await failures.keep([letter(minutes=None)])
    assert await database.fetchval("SELECT occurrences FROM failed_events") == 1


async def test_what_is_kept_does_not_depend_on_batches(failures: FailedEvents, database: Pool) -> None:
    """The same letters, one by one or all at once, shuffled and repeated, make the same rows, one per entry."""
    letters = [letter(bytes([n]), minutes=m, error=f"at {m}") for n in range(5) for m in range(2)]
    for one in [*letters, *random.sample(letters, 5)]:
        await failures.keep([one])
    one_by_one = await database.fetch("SELECT * FROM failed_events ORDER BY id")
    await database.execute("DELETE FROM failed_events")
    await failures.keep(random.sample(letters, 10) + letters)
    assert await database.fetch("SELECT * FROM failed_events ORDER BY id") == one_by_one
    assert {row["occurrences"] for row in one_by_one} == {2}


async def test_huge_letters_and_hostile_names_are_kept(failures: FailedEvents, database: Pool) -> None:
    """A batch of megabytes goes in pieces, and names too long for an index are cut."""
    noise = random.Random(1).randbytes(6_000).hex()
    large = [letter(bytes([n]) * 3_000_000) for n in range(4)]
    named = letter(json.dumps({"id": noise, "data": {"organization_id": noise}}).encode(), stage=noise.encode())
    await failures.keep([*large, named])
    assert await database.fetchval("SELECT count(*) FROM failed_events") == 5
    assert await database.fetchval("SELECT max(length(organization_id)) FROM failed_events") == 200


@pytest.mark.parametrize("stage", [b"generation", b"projection"])
async def test_the_run_of_a_poison_event_ends_if_its_job_needs_the_stage(database_url: str, stage: bytes) -> None:
    """An event that kills its workers fails its job, in the same words each time; the projection's poison does not."""
    database = Database(database_url, size=2)
    poison = Poison(database, SystemClock())
    event = job_requested(job_id=JobId(uuid4()), organization_id="a", team_id="t", requirements="a game", at=NOON)
    headers = {DEAD_LETTER_REASON: REASON_MAX_DELIVERIES.encode(), DEAD_LETTER_DELIVERIES: b"6"}
    dead = letter(event.encode(), stage=stage, headers=headers)
    first, second = [list(await poison.end_run(dead)) for _ in range(2)]
    await database.close()
    assert first == second
    codes = [fact.data.code for one in first if isinstance(fact := parse_event(one.value), JobFailed)]
    assert codes == (["poison_event"] if stage == b"generation" else [])


async def test_a_letter_that_is_no_poison_or_no_event_ends_nothing(database_url: str) -> None:
    """What a stage gave up it has given up by itself; what is no event belongs to no job."""
    database = Database(database_url, size=2)
    poison = Poison(database, SystemClock())
    event = job_requested(job_id=JobId(uuid4()), organization_id="a", team_id="t", requirements="a game", at=NOON)
    max_deliveries = {DEAD_LETTER_REASON: REASON_MAX_DELIVERIES.encode()}
    assert not await poison.end_run(letter(event.encode(), headers={DEAD_LETTER_REASON: b"given_up"}))
    assert not await poison.end_run(letter(b"not json", headers=max_deliveries))
    await database.close()
