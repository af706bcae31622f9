"""Admission and settlement on a real database."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from uuid import uuid4

import pytest

from consumers.quota import ledger
from consumers.quota.admission import Admissions
from consumers.quota.decisions import Decision, LedgerState
from consumers.quota.settlement import Settlements
from infra.errors import InvalidEvent
from infra.postgres import Database
from streams.delivery.batching import Batcher
from streams.delivery.deliveries import Record
from streams.jobs.events import JobAccepted, JobFailed, JobId, JobRejected, JobRequested, TerminalFact, parse_event
from streams.jobs.outcomes import RunOutcome, decide_outcome
from streams.jobs.stages import QUOTA, topic_after
from tests.conftest import Pool
from tests.integration.quota_scene import (
    NOON,
    PERIOD,
    CountingDatabase,
    ManualClock,
    add_organization,
    cancelled,
    completed,
    facts,
    failed,
    request,
    state,
    usage,
)
from tests.waiting import wait_for


@pytest.fixture
async def postgres(database_url: str) -> AsyncIterator[CountingDatabase]:
    """The stage's own pool."""
    database = CountingDatabase(database_url, size=4)
    yield database
    await database.close()


@pytest.fixture
async def other_postgres(database_url: str) -> AsyncIterator[Database]:
    """Another worker's pool."""
    database = Database(database_url, size=4)
    yield database
    await database.close()


def admissions(database: Database, clock: ManualClock | None = None) -> Admissions:
    """A worker's admission."""
    return Admissions(database, clock or ManualClock(), trust_threshold=0.5)


def settlements(database: Database) -> Settlements:
    """A worker's settlement."""
    return Settlements(database, ManualClock())


async def end(database: Database, of: JobRequested, outcome: RunOutcome) -> None:
    """End a run, as another stage does."""
    async with database.transaction() as connection:
        assert await decide_outcome(connection, of.job_id, of.run, outcome) == outcome


async def test_an_eligible_request_is_accepted_and_holds_a_unit(postgres: Database, database: Pool) -> None:
    """The acceptance carries the request on, and one unit is reserved for it."""
    await add_organization(database)
    asked = request()
    [[record]] = await admissions(postgres).admit([asked])  # type: ignore[misc]  # it is no InvalidEvent
    accepted = parse_event(record.value)
    assert isinstance(accepted, JobAccepted)
    assert (record.topic, record.key) == (topic_after(QUOTA), str(asked.job_id).encode())
    assert accepted.data.model_dump(exclude={"priority"}) == asked.data.model_dump(exclude={"run_at"})
    assert await usage(database) == (1, 0)


async def test_a_priority_subscription_is_said_in_the_acceptance(postgres: Database, database: Pool) -> None:
    """Precedence is a greater weight in the dispatch; the topic is the same."""
    await add_organization(database, priority=True)
    [[record]] = await admissions(postgres).admit([request()])  # type: ignore[misc]  # it is no InvalidEvent
    event = parse_event(record.value)
    assert isinstance(event, JobAccepted)
    assert (record.topic, event.data.priority) == (topic_after(QUOTA), True)


async def test_each_rule_refuses_with_its_code_and_takes_no_unit(postgres: Database, database: Pool) -> None:
    """A refusal is a fact, a row in the ledger and the end of the run, all at once."""
    await add_organization(database, "acme", monthly_quota=0)
    await add_organization(database, "free", plan="free")
    await add_organization(database, "lapsed", status="cancelled")
    await add_organization(database, "none", plan=None)
    await add_organization(database, "shady", trust_score=0.1)
    asked = {
        "organization_not_found": request("nobody"),
        "team_not_found": request("acme", team_id="free-team"),
        "quota_exceeded": request("acme"),
        "trust_too_low": request("shady"),
    }
    unpaid = [request("free"), request("lapsed"), request("none")]
    rejected = facts(await admissions(postgres).admit([*asked.values(), *unpaid]))
    assert all(isinstance(event, JobRejected) for event in rejected)
    codes = [event.data.code for event in rejected if isinstance(event, JobRejected)]
    assert codes == [*asked, *["subscription_required"] * 3]
    assert await database.fetchval("SELECT count(*) FROM quota_ledger WHERE state = 'rejected'") == 7
    assert await database.fetchval("SELECT count(*) FROM job_outcomes WHERE outcome = 'rejected'") == 7
    assert await database.fetchval("SELECT coalesce(sum(reserved + charged), 0) FROM quota_usage") == 0


async def test_a_batch_admits_what_is_left_in_the_streams_order(postgres: Database, database: Pool) -> None:
    """Of five requests in one batch for three units the first three get them, other organizations in between."""
    await add_organization(database, "acme", monthly_quota=3)
    await add_organization(database, "globex", monthly_quota=1)
    asked = [request(name) for name in ("acme", "globex", "acme", "globex", "acme", "acme", "acme")]
    answers = facts(await admissions(postgres).admit(asked))
    assert [isinstance(answer, JobAccepted) for answer in answers] == [True, True, True, False, True, False, False]
    assert (await usage(database, "acme"), await usage(database, "globex")) == ((3, 0), (1, 0))


async def test_a_batch_costs_the_same_number_of_statements_whatever_its_size(
    postgres: CountingDatabase, database: Pool
) -> None:
    """Ten times the requests, or the facts, are the same round trips."""
    await add_organization(database, monthly_quota=100)
    await add_organization(database, "free", plan="free")
    spent = []
    for size in (2, 2, 20, 200):  # asyncpg asks for the types of parameters when it first meets them
        asked = [request("free" if n % 2 else "acme") for n in range(size)]
        await admissions(postgres).admit(asked)
        admitting = len(postgres.statements)
        await settlements(postgres).settle([*(completed(one) for one in asked), failed(request())])
        spent.append((admitting, len(postgres.statements)))
    assert spent[1:] == [(8, 4)] * 3


async def test_a_repeat_gets_the_same_facts_byte_for_byte(postgres: Database, database: Pool) -> None:
    """Whatever has changed since, the first decision stands, and its facts are published again as they were."""
    await add_organization(database, monthly_quota=1)
    asked = [request(), request()]
    first = await admissions(postgres).admit(asked)
    await database.execute("UPDATE subscriptions SET monthly_quota = 9, plan = 'free', priority = true")
    later = ManualClock(NOON + timedelta(days=40))
    assert await admissions(postgres, later).admit([*asked, *asked]) == [*first, *first]
    assert await usage(database) == (1, 0)


async def test_the_same_request_twice_in_a_batch_takes_one_unit(postgres: Database, database: Pool) -> None:
    """A batch that holds a delivery and its redelivery answers both alike."""
    await add_organization(database)
    asked = request()
    first, second = await admissions(postgres).admit([asked, asked])
    assert first == second
    assert await usage(database) == (1, 0)


async def test_a_replay_is_admitted_anew(postgres: Database, database: Pool) -> None:
    """The next run of a job passes the rules again and takes a unit of its own."""
    await add_organization(database, monthly_quota=1)
    first = request()
    await admissions(postgres).admit([first])
    again = request(job_id=first.job_id, run=2)
    [refused] = facts(await admissions(postgres).admit([again]))
    assert isinstance(refused, JobRejected)
    await settlements(postgres).settle([failed(first)])
    [accepted] = facts(await admissions(postgres).admit([request(job_id=first.job_id, run=3)]))
    assert isinstance(accepted, JobAccepted)
    assert await usage(database) == (1, 0)


async def test_a_run_that_was_cancelled_while_it_waited_is_left_alone(postgres: Database, database: Pool) -> None:
    """It gets no reservation, and nothing is said about it: its end has been published by whoever ended it."""
    await add_organization(database)
    asked, neighbour = request(), request()
    await end(postgres, asked, "cancelled")
    nothing, accepted = await admissions(postgres).admit([asked, neighbour])
    assert nothing == ()
    assert accepted != ()
    assert await state(database, asked) is None


async def test_a_reserved_run_that_ended_is_not_accepted_again(postgres: Database, database: Pool) -> None:
    """A redelivered request of a job that is long done sends nobody to work."""
    await add_organization(database)
    asked = request()
    await admissions(postgres).admit([asked])
    await end(postgres, asked, "completed")
    assert await admissions(postgres).admit([asked]) == [()]
    await settlements(postgres).settle([completed(asked)])
    assert await admissions(postgres).admit([asked]) == [()]
    assert await usage(database) == (0, 1)


async def test_another_organizations_job_id_is_an_invalid_event(postgres: Database, database: Pool) -> None:
    """A job belongs to who first requested it, in every run; the intruder's request fails, and fails nobody's job."""
    await add_organization(database, "acme")
    await add_organization(database, "globex")
    owned = request("acme")
    await admissions(postgres).admit([owned])
    for run in (1, 2):
        stolen = request("globex", job_id=owned.job_id, run=run)
        [refused] = await admissions(postgres).admit([stolen])
        assert isinstance(refused, InvalidEvent)
        assert "subject" in str(refused)
        assert await admissions(postgres).give_up(stolen, refused) == ()
    assert await database.fetchval("SELECT count(*) FROM job_outcomes") == 0
    assert await usage(database, "globex") == (0, 0)


async def test_a_request_given_up_fails_its_run(postgres: Database, database: Pool) -> None:
    """What the stage cannot decide ends as a JobFailed that says so, without the bug's private message."""
    asked = request()
    [record] = await admissions(postgres).give_up(asked, ValueError("secret"))
    event = parse_event(record.value)
    assert isinstance(event, JobFailed)
    assert event.data.code == "internal_error"
    assert "secret" not in event.data.error_message


async def test_completion_charges_and_any_other_end_releases(postgres: Database, database: Pool) -> None:
    """Each ends the reservation once, in the period in which it was made, however often it is told."""
    await add_organization(database)
    done, broken, withdrawn, live = [request() for _ in range(4)]
    await admissions(postgres).admit([done, broken, withdrawn, live])
    ends: list[TerminalFact] = [completed(done), failed(broken), cancelled(withdrawn)]
    for _ in range(2):
        await settlements(postgres).settle([*ends, *ends])
    assert [await state(database, one) for one in (done, broken, withdrawn, live)] == [
        "charged",
        "released",
        "released",
        "reserved",
    ]
    assert await usage(database) == (1, 1)


async def test_a_settled_run_never_moves_again(postgres: Database, database: Pool) -> None:
    """A fact that contradicts an earlier one changes nothing, in the same batch or a later one."""
    await add_organization(database)
    one, two = request(), request()
    await admissions(postgres).admit([one, two])
    await settlements(postgres).settle([completed(one), failed(one), failed(two)])
    await settlements(postgres).settle([failed(one), completed(two)])
    assert (await state(database, one), await state(database, two)) == ("charged", "released")
    assert await usage(database) == (0, 1)


async def test_an_end_that_overtakes_its_request_leaks_nothing(postgres: Database, database: Pool) -> None:
    """Job cancelled while its request waits: when the request comes, it finds the run closed and reserves nothing."""
    await add_organization(database)
    asked = request()
    await settlements(postgres).settle([cancelled(asked)])
    assert await admissions(postgres).admit([asked]) == [()]
    await settlements(postgres).settle([cancelled(asked)])
    assert await state(database, asked) == "released"
    assert await usage(database) == (0, 0)


async def blocked(pool: Pool) -> bool:
    """Whether somebody waits for a lock in this database."""
    waiting: bool = await pool.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database() AND pid <> pg_backend_pid())"
    )
    return waiting


def decision(of: JobRequested, decided: LedgerState) -> Decision:
    """A ledger row as another worker would write it."""
    return Decision(
        job_id=of.job_id,
        run=of.run,
        organization_id=of.data.organization_id,
        period=PERIOD,
        state=decided,
        code=None,
        message=None,
        priority=False,
        decided_at=NOON,
    )


async def test_an_end_that_comes_while_its_request_commits_leaks_nothing(
    postgres: Database, other_postgres: Database, database: Pool
) -> None:
    """The settlement waits for the reservation that is being written, and then releases it."""
    await add_organization(database)
    asked = request()
    async with other_postgres.transaction() as connection:
        await ledger.open_usage(connection, {"acme"}, period=PERIOD)
        await ledger.enter(connection, [decision(asked, "reserved")], at=NOON)
        settling = asyncio.create_task(settlements(postgres).settle([cancelled(asked)]))
        await wait_for(lambda: blocked(database), what="the settlement to wait for the reservation")
    await settling
    assert await state(database, asked) == "released"
    assert await usage(database) == (0, 0)


async def test_a_request_that_comes_while_its_end_commits_leaks_nothing(
    postgres: Database, other_postgres: Database, database: Pool
) -> None:
    """The admission waits for the end that is being written, and then leaves the run alone."""
    await add_organization(database, monthly_quota=1)
    asked, neighbour = request(), request()
    async with other_postgres.transaction() as connection:
        await ledger.enter(connection, [decision(asked, "released")], at=NOON)
        admitting = asyncio.create_task(admissions(postgres).admit([asked, neighbour]))
        await wait_for(lambda: blocked(database), what="the admission to wait for the end")
    nothing, accepted = await admitting
    assert nothing == ()
    assert isinstance(facts([accepted])[0], JobAccepted), "the unit that the ended run left must go to the next"
    assert await usage(database) == (1, 0)


async def test_one_remaining_unit_is_taken_once_by_two_workers(
    postgres: Database, other_postgres: Database, database: Pool
) -> None:
    """200 requests at once against one unit: one is accepted, 199 hear quota_exceeded, and the ledger is exact."""
    await add_organization(database, monthly_quota=50)
    await admissions(postgres).admit([request() for _ in range(49)])
    workers = [Batcher(admissions(pool).admit, max_size=20, timeout_s=30) for pool in (postgres, other_postgres)]
    answers = facts(await asyncio.gather(*(workers[n % 2].submit(request()) for n in range(200))))
    codes = Counter(answer.data.code if isinstance(answer, JobRejected) else answer.type for answer in answers)
    assert codes == {"teamfit.job.accepted.v1": 1, "quota_exceeded": 199}
    assert await usage(database) == (50, 0)
    assert await database.fetchval("SELECT count(*) FROM quota_ledger WHERE state = 'rejected'") == 199


async def test_workers_that_get_the_same_requests_agree_and_never_deadlock(
    postgres: Database, other_postgres: Database, database: Pool
) -> None:
    """Two workers take the same requests of five organizations in different orders, while facts settle some of them.

    A deadlock would surface here as DependencyDown.
    """
    names = [f"org-{n}" for n in range(5)]
    for name in names:
        await add_organization(database, name, monthly_quota=12)
    asked = [request(random.choice(names)) for _ in range(120)]
    kinds: list[Callable[[JobRequested], TerminalFact]] = [completed, failed, cancelled]
    ends = [random.choice(kinds)(one) for one in random.sample(asked, 60)]

    async def work(pool: Database) -> dict[JobId, list[Record]]:
        mine = random.sample(asked, len(asked))
        found: dict[JobId, list[Record]] = {}
        for start in range(0, len(mine), 15):
            batch = mine[start : start + 15]
            for one, answer in zip(batch, await admissions(pool).admit(batch), strict=True):
                assert not isinstance(answer, InvalidEvent)
                found[one.job_id] = list(answer)
        return found

    async def settle(pool: Database) -> None:
        mine = random.sample(ends, len(ends))
        for start in range(0, len(mine), 15):
            await settlements(pool).settle(mine[start : start + 15])

    one, two, *_ = await asyncio.gather(work(postgres), work(other_postgres), settle(postgres), settle(other_postgres))
    assert one is not None
    assert two is not None
    for job_id in one:
        answers = [answer for answer in (one[job_id], two[job_id]) if answer]
        assert len({repr(answer) for answer in answers}) <= 1
    await settlements(postgres).settle(ends)
    for name in names:
        reserved, charged = await usage(database, name)
        assert reserved + charged <= 12
    open_runs = {
        row["job_id"] for row in await database.fetch("SELECT job_id FROM quota_ledger WHERE state='reserved'")
    }
    assert not open_runs & {one.job_id for one in ends}


async def test_quota_of_a_new_month_starts_at_nothing_used(postgres: Database, database: Pool) -> None:
    """Each UTC month has counters of its own, and a late completion is charged to the month of its reservation."""
    await add_organization(database, monthly_quota=1)
    april, may = request(job_id=JobId(uuid4())), request()
    await admissions(postgres).admit([april])
    [accepted] = facts(await admissions(postgres, ManualClock(NOON + timedelta(days=30))).admit([may]))
    assert isinstance(accepted, JobAccepted)
    await settlements(postgres).settle([completed(april)])
    assert await usage(database, period="2031-04") == (0, 1)
    assert await usage(database, period="2031-05") == (1, 0)
