"""Records kept until they are due."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from infra.errors import Transient
from infra.postgres import Database
from streams.delivery.deliveries import Record
from streams.delivery.scheduled import ScheduledRetries, take_due
from streams.jobs.events import JobFailed, JobId, parse_event
from streams.jobs.facts import job_requested
from streams.jobs.outcomes import RunOutcome, decide_outcome, fail_run

NOON = datetime(2031, 4, 1, 12, tzinfo=UTC)
RECORD = Record("job-requests", b"key", b"\xff\x00", {"attempt": b"2", "odd": b"\x00\xff%"})


@dataclass
class ManualClock:
    """A clock that stands where it was set."""

    time: datetime = NOON

    def now(self) -> datetime:
        return self.time


async def due(database: Database, now: datetime, limit: int = 100) -> list[Record]:
    """Take what is due at a moment."""
    async with database.transaction() as connection:
        return list(await take_due(connection, now=now, limit=limit))


async def test_a_record_comes_back_byte_for_byte_when_it_is_due(postgres: Database) -> None:
    """Keys, values and headers survive, whatever bytes they hold; nothing comes early; nothing comes twice."""
    await ScheduledRetries(postgres, ManualClock()).schedule(RECORD, timedelta(minutes=1), reason="test")
    assert await due(postgres, NOON + timedelta(seconds=59)) == []
    assert await due(postgres, NOON + timedelta(seconds=60)) == [RECORD]
    assert await due(postgres, NOON + timedelta(days=1)) == []


async def test_keeping_a_record_twice_keeps_it_once(postgres: Database) -> None:
    """A stage that repeats itself after a crash does not double its retry."""
    retries = ScheduledRetries(postgres, ManualClock())
    await asyncio.gather(*(retries.schedule(RECORD, timedelta(), reason="test") for _ in range(4)))
    assert await due(postgres, NOON) == [RECORD]


async def test_two_takers_never_take_the_same_record(postgres: Database) -> None:
    """What one taker holds the other skips, without waiting for it."""
    retries = ScheduledRetries(postgres, ManualClock())
    for number in range(4):
        await retries.schedule(Record("t", None, b"%d" % number), timedelta(), reason="test")
    async with postgres.transaction() as first, postgres.transaction() as second:
        one = await take_due(first, now=NOON, limit=2)
        two = await take_due(second, now=NOON, limit=4)
    assert sorted(record.value or b"" for record in [*one, *two]) == [b"0", b"1", b"2", b"3"]


async def test_what_was_kept_in_the_future_is_due_at_once(postgres: Database) -> None:
    """The clock was forty days ahead when a retry was kept, and was set back: the job does not wait for forty days."""
    ahead = ManualClock(NOON + timedelta(days=40))
    await ScheduledRetries(postgres, ahead).schedule(RECORD, timedelta(minutes=1), reason="test")
    assert await due(postgres, NOON) == [RECORD]


async def test_a_run_ends_in_one_way_however_many_decide_it(postgres: Database) -> None:
    """Completing, failing and cancelling at the same moment, each repeated: all read the same decision."""
    job_id = JobId(uuid4())

    async def decide(outcome: RunOutcome) -> RunOutcome:
        async with postgres.transaction() as connection:
            return await decide_outcome(connection, job_id, 1, outcome)

    choices: list[RunOutcome] = ["completed", "failed", "cancelled"]
    decisions = await asyncio.gather(*(decide(outcome) for outcome in choices * 3))
    assert len(set(decisions)) == 1


async def test_giving_a_run_up_twice_tells_the_same_fact(postgres: Database) -> None:
    """The first decision's fact is kept, so that it can be published again word for word."""
    job_id = JobId(uuid4())
    event = job_requested(job_id=job_id, organization_id="acme", team_id="t", requirements="a game", at=NOON)
    [first] = await fail_run(postgres, ManualClock(), event, Transient("llm_timeout", "it was slow"))
    later = ManualClock(NOON + timedelta(hours=1))
    [second] = await fail_run(postgres, later, event, KeyError("a bug"))
    assert parse_event(first.value) == parse_event(second.value)
    assert isinstance(fact := parse_event(second.value), JobFailed)
    assert (fact.time, fact.data.code) == (NOON, "llm_timeout")
