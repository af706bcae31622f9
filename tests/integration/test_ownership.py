"""Whose a job is: only a valid request of its first run claims it; nothing else about an unknown job has an effect."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from infra.errors import ForgedEvent, InvalidEvent, JobIdReused
from infra.postgres import Database
from streams.jobs.events import (
    Accepted,
    CancelRequested,
    JobAccepted,
    JobCancelRequested,
    JobEvent,
    JobFailed,
    JobId,
    JobRequested,
    fact_id,
)
from streams.jobs.facts import job_requested
from streams.jobs.job_ids import job_id_for
from streams.jobs.outcomes import decide_outcome
from streams.jobs.ownership import Ownership
from tests.conftest import Pool
from tests.facts import ENDS, End, failed, started

NOW = datetime(2031, 4, 15, 12, tzinfo=UTC)
KEY = "offsite-7"


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Database]:
    """The connections of a stage."""
    opened = Database(database_url, size=4)
    yield opened
    await opened.close()


@pytest.fixture
def ownership(stage: Database) -> Ownership:
    """The check as a stage makes it."""
    return Ownership(stage, timeout=timedelta(seconds=5))


def asked(job_id: JobId, *, run: int = 1, organization: str = "acme", key: str | None = None) -> JobRequested:
    """A valid request."""
    return job_requested(
        job_id=job_id,
        organization_id=organization,
        team_id="t",
        requirements="puzzles",
        at=NOW,
        run=run,
        idempotency_key=key,
    )


def wished(request: JobRequested, **changes: object) -> JobRequested:
    """The request with another wish, under another event ID."""
    return request.model_copy(update={"id": str(uuid4()), "data": request.data.model_copy(update=changes)})


def withdrawn(job_id: JobId, *, run: int = 1) -> JobCancelRequested:
    """A valid cancellation."""
    return JobCancelRequested(
        id=f"c-{run}", subject=job_id, time=NOW, run=run, data=CancelRequested(organization_id="acme")
    )


def told(end: End, job_id: JobId) -> JobEvent:
    """A fact under the ID that a stage would give it."""
    event = end(job=job_id)
    return event.model_copy(update={"id": fact_id(job_id, 1, event.type.split(".")[2])})


def unfounded(job_id: JobId) -> list[JobEvent]:
    """Events about a job that nobody has asked for, of every type, none of which is a request of its first run."""
    wish = Accepted(organization_id="acme", team_id="t", requirements="puzzles")
    accepted = JobAccepted(id=fact_id(job_id, 1, "accepted"), subject=job_id, time=NOW, data=wish)
    later = [asked(job_id, run=run) for run in (2, 3, 2**31 - 1)]
    return [*later, withdrawn(job_id, run=2), accepted, told(started, job_id), *(told(end, job_id) for end in ENDS)]


async def owner_of(database: Pool, job_id: JobId) -> str | None:
    """Whose a job is on record."""
    owner: str | None = await database.fetchval("SELECT job_owner($1)", job_id)
    return owner


async def test_only_a_first_request_claims_a_job(ownership: Ownership, database: Pool) -> None:
    """Whatever else came first is refused, and the job is another organization's who asks for it then."""
    for place in range(len(unfounded(JobId(uuid4())))):
        job_id = JobId(uuid4())
        event = unfounded(job_id)[place]
        with pytest.raises(ForgedEvent):
            await ownership.check(event)
        assert await owner_of(database, job_id) is None, event
        await ownership.check(asked(job_id, organization="birch"))
        assert await owner_of(database, job_id) == "birch", event


async def test_a_cancellation_before_its_request_claims_nothing(ownership: Ownership, database: Pool) -> None:
    """It waits for its own organization's request alone."""
    job_id = JobId(uuid4())
    assert not await ownership.cancels_now(withdrawn(job_id))
    assert await owner_of(database, job_id) is None
    assert (await ownership.check(asked(job_id, organization="birch"))).cancelled_before is None


async def test_a_key_is_named_to_claim_the_id_that_follows_from_it(ownership: Ownership, database: Pool) -> None:
    """The ID alone, or with another key, claims nothing, whoever sends it."""
    job_id = job_id_for("acme", KEY)
    for organization, key in (("acme", None), ("acme", "another"), ("birch", KEY), ("birch", None)):
        with pytest.raises(ForgedEvent, match="idempotencykey"):
            await ownership.check(asked(job_id, organization=organization, key=key))
    assert await owner_of(database, job_id) is None
    await ownership.check(asked(job_id, key=KEY))
    assert await owner_of(database, job_id) == "acme"


async def test_a_replay_goes_on_with_what_nobody_had_claimed(
    ownership: Ownership, stage: Database, database: Pool
) -> None:
    """Of a run that a replay ended, before any stage could read it, the next run is its organization's alone."""
    job_id = JobId(uuid4())
    fact = told(failed, job_id)
    assert isinstance(fact, JobFailed)
    async with stage.transaction() as connection:
        await decide_outcome(connection, job_id, 1, "failed", fact=fact)
    await ownership.check(fact)
    with pytest.raises(ForgedEvent):
        await ownership.check(asked(job_id, run=2, organization="birch"))
    assert await owner_of(database, job_id) is None
    await ownership.check(asked(job_id, run=2))
    assert await owner_of(database, job_id) == "acme"


async def test_the_first_wish_holds(ownership: Ownership) -> None:
    """A repeat is believed under any ID of its own; another wish, team or time for the same job is not."""
    first = asked(JobId(uuid4()))
    for event in (first, first, wished(first)):
        await ownership.check(event)
    for changes in ({"requirements": "more"}, {"team_id": "u"}, {"run_at": NOW}, {"requirements": "puzzles "}):
        with pytest.raises(JobIdReused, match="use a new UUID"):
            await ownership.check(wished(first, **changes))
        assert not await ownership.allows(wished(first, **changes))
    await ownership.check(first)


async def test_of_two_wishes_at_once_one_holds(ownership: Ownership) -> None:
    """They are read in one batch, or by two workers: one of them is believed, and the same one ever after."""
    first = asked(JobId(uuid4()))
    wishes = [wished(first, requirements=f"wish {n}") for n in range(10)]
    found = await asyncio.gather(*(ownership.check(wish) for wish in wishes), return_exceptions=True)
    held = [wish for wish, one in zip(wishes, found, strict=True) if not isinstance(one, BaseException)]
    assert len(held) == 1
    assert {type(one) for one in found if isinstance(one, BaseException)} == {JobIdReused}
    await ownership.check(held[0])


async def test_jobs_whose_wish_is_not_on_record_are_not_compared(ownership: Ownership, database: Pool) -> None:
    """Those that an older version claimed, and those whose texts were erased."""
    first = asked(JobId(uuid4()))
    await ownership.check(first)
    await database.execute("UPDATE job_owners SET wish = NULL WHERE job_id = $1", first.job_id)
    await ownership.check(wished(first, requirements="more"))


def test_sql_knows_every_error_of_an_event_that_was_not_believed() -> None:
    """Statements that tell such events apart by their errors' names list each class of them."""
    names = {InvalidEvent.__name__, *(one.__name__ for one in InvalidEvent.__subclasses__())}
    root = Path(__file__).parents[2]
    listing = [
        (path.name, set(re.findall(r"'(\w+)'", found)))
        for folder in ("consumers", "infra", "producers", "streams")
        for path in (root / folder).rglob("*.sql")
        for found in re.findall(r"IN \(('InvalidEvent'[^)]*)\)", path.read_text())
    ]
    assert len(listing) >= 4
    assert [one for one in listing if one[1] != names] == []


async def test_a_claim_alone_does_not_wait_for_the_disk(database_url: str) -> None:
    """The session's next transaction waits again: the setting is the claim's own."""
    database = Database(database_url, size=1)
    try:
        await Ownership(database, timeout=timedelta(seconds=5)).check(asked(JobId(uuid4())))
        async with database.connection() as connection:
            assert await connection.fetchval("SHOW synchronous_commit") == "on"
    finally:
        await database.close()
