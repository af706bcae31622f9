"""One organization's long transaction, and the others that go on meanwhile. Orders are looked at, not times."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from consumers.quota.admission import Admission, Admissions
from consumers.quota.counters import CounterBatches
from consumers.quota.ledger import Locked
from consumers.quota.settlement import Settlements
from infra.errors import Postponed
from infra.postgres import Database
from streams.jobs.events import JobAccepted, JobRequested, TerminalFact
from tests.conftest import Pool
from tests.integration.quota_scene import (
    PERIOD,
    ManualClock,
    add_organization,
    completed,
    facts,
    failed,
    request,
    state,
    usage,
)

ORGANIZATIONS = ("acme", "birch", "cedar")


@pytest.fixture
async def postgres(database_url: str, database: Pool) -> AsyncIterator[Database]:
    """A worker's own pool, and three organizations whose counters are open."""
    opened = Database(database_url, size=10)
    for name in ORGANIZATIONS:
        await add_organization(database, name, monthly_quota=5)
        await database.execute("INSERT INTO quota_usage (organization_id, period) VALUES ($1, $2)", name, PERIOD)
    yield opened
    await opened.close()


class Seconds:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def admitting(
    postgres: Database, seconds: Callable[[], float] = time.monotonic
) -> CounterBatches[JobRequested, Admission]:
    """A worker's admission."""
    admissions = Admissions(postgres, ManualClock(), trust_threshold=0.5)
    return CounterBatches(
        admissions.admit,
        admissions.admit_free,
        owner=lambda one: one.data.organization_id,
        max_size=200,
        timeout_s=30,
        seconds=seconds,
    )


@asynccontextmanager
async def locked(database: Pool, *organizations: str) -> AsyncIterator[None]:
    """Somebody's transaction that keeps counters locked until the block ends."""
    async with database.acquire() as connection, connection.transaction():
        await connection.execute(
            "SELECT FROM quota_usage WHERE organization_id = ANY($1) FOR UPDATE", list(organizations)
        )
        yield


async def test_one_organizations_lock_holds_up_nobody_else(postgres: Database, database: Pool) -> None:
    """Requests of one batch: those of the others are decided, and those of the locked one come again later."""
    worker = admitting(postgres)
    asked = [request(name) for name in ("birch", "acme", "birch", "cedar", "birch", "acme")]
    async with locked(database, "birch"):
        told = await asyncio.gather(*map(worker.submit, asked), return_exceptions=True)
        assert [isinstance(one, Postponed) for one in told] == [one.data.organization_id == "birch" for one in asked]
        assert all(isinstance(one, JobAccepted) for one in facts(one for one in told if not isinstance(one, Postponed)))
        assert [await usage(database, name) for name in ORGANIZATIONS] == [(2, 0), (0, 0), (1, 0)]
    assert await database.fetchval("SELECT count(*) FROM quota_ledger") == 3


async def test_a_counter_that_was_locked_is_left_alone_for_a_while(postgres: Database, database: Pool) -> None:
    """What comes for it meanwhile is postponed without a look; then it is looked at again."""
    seconds = Seconds()
    worker = admitting(postgres, seconds)
    async with locked(database, "birch"):
        with pytest.raises(Postponed, match="organization birch: its counter"):
            await worker.submit(request("birch"))
    with pytest.raises(Postponed):
        await worker.submit(request("birch"))
    assert facts([await worker.submit(request("acme"))])
    seconds.now += 5
    assert isinstance(facts([await worker.submit(request("birch"))])[0], JobAccepted)
    assert await usage(database, "birch") == (1, 0)


async def test_settlement_waits_for_nobody_else_either(postgres: Database, database: Pool) -> None:
    """Facts of one batch: units of the others are charged and released while one organization's counter is locked."""
    asked = {name: request(name) for name in ORGANIZATIONS}
    await Admissions(postgres, ManualClock(), trust_threshold=0.5).admit(list(asked.values()))
    settlements = Settlements(postgres, ManualClock())
    worker: CounterBatches[TerminalFact, None] = CounterBatches(
        settlements.settle,
        settlements.settle_free,
        owner=lambda one: one.data.organization_id,
        max_size=200,
        timeout_s=30,
    )
    ends: tuple[TerminalFact, ...] = (completed(asked["acme"]), failed(asked["cedar"]), completed(asked["birch"]))
    async with locked(database, "birch"):
        told = await asyncio.gather(*map(worker.submit, ends), return_exceptions=True)
        assert [type(one) for one in told] == [type(None), type(None), Postponed]
        assert [await state(database, one) for one in asked.values()] == ["charged", "reserved", "released"]
    assert [await usage(database, name) for name in ORGANIZATIONS] == [(0, 1), (1, 0), (0, 0)]


async def test_the_wait_is_limited_before_anything_is_on_record(postgres: Database, database: Pool) -> None:
    """An end that comes before its request, and a first request, are waited with no longer than others."""
    asked, moment = request("acme"), timedelta(milliseconds=50)
    async with asyncio.timeout(20), database.acquire() as connection, connection.transaction():
        await connection.execute(
            "INSERT INTO quota_ledger (job_id, run, organization_id, period, state, priority, decided_at)"
            " VALUES ($1, $2, 'acme', $3, 'released', false, now())",
            asked.job_id,
            asked.run,
            PERIOD,
        )
        with pytest.raises(Locked):
            await Settlements(postgres, ManualClock()).settle([completed(asked)], moment)
        with pytest.raises(Locked):
            await Admissions(postgres, ManualClock(), trust_threshold=0.5).admit([asked], moment)


async def test_a_limited_wait_ends_with_its_transaction(postgres: Database) -> None:
    """What comes next on the connection waits as long as the server says."""
    for organization in ("acme", "unheard-of"):
        asked = request(organization)
        await Admissions(postgres, ManualClock(), trust_threshold=0.5).admit([asked], timedelta(seconds=1))
        await Settlements(postgres, ManualClock()).settle([completed(asked)], timedelta(seconds=1))
        async with postgres.connection() as connection:
            assert await connection.fetchval("SHOW lock_timeout") == "0"


async def test_many_locked_organizations_hold_up_none_that_is_free(postgres: Database, database: Pool) -> None:
    """However many counters are locked, one that is free is had, in the same batch."""
    worker = admitting(postgres)
    names = [f"locked-{number}" for number in range(20)]
    for name in names:
        await add_organization(database, name)
        await database.execute("INSERT INTO quota_usage (organization_id, period) VALUES ($1, $2)", name, PERIOD)
    async with locked(database, *names):
        *others, told = await asyncio.gather(
            *(worker.submit(request(name)) for name in (*names, "acme")), return_exceptions=True
        )
        assert [type(one) for one in others] == [Postponed] * len(names)
    assert not isinstance(told, BaseException)
    assert isinstance(facts([told])[0], JobAccepted)


async def test_an_organization_without_a_counter_gets_one(postgres: Database, database: Pool) -> None:
    """The first request of a new organization is admitted, also in a batch that finds another one locked."""
    await add_organization(database, "new")
    worker = admitting(postgres)
    async with locked(database, "birch"):
        put_off, told = await asyncio.gather(
            worker.submit(request("birch")), worker.submit(request("new")), return_exceptions=True
        )
    assert isinstance(put_off, Postponed)
    assert not isinstance(told, BaseException)
    assert isinstance(facts([told])[0], JobAccepted)
    assert await usage(database, "new") == (1, 0)


async def test_a_counter_that_is_being_made_holds_up_none_that_is_there(postgres: Database, database: Pool) -> None:
    """Somebody's transaction has made counters and goes on: what needs one of them comes again later."""
    await add_organization(database, "new")
    worker = admitting(postgres)
    async with database.acquire() as connection, connection.transaction():
        await connection.execute("INSERT INTO quota_usage (organization_id, period) VALUES ('new', $1)", PERIOD)
        put_off, told = await asyncio.gather(
            worker.submit(request("new")), worker.submit(request("acme")), return_exceptions=True
        )
    assert isinstance(put_off, Postponed)
    assert not isinstance(told, BaseException)
    assert isinstance(facts([told])[0], JobAccepted)


async def test_a_batch_that_waits_too_long_has_done_nothing(postgres: Database, database: Pool) -> None:
    """Neither its refusals nor its reservations are kept."""
    admissions = Admissions(postgres, ManualClock(), trust_threshold=0.5)
    async with locked(database, "birch"):
        with pytest.raises(Locked):
            await admissions.admit(
                [request("acme"), request("birch"), request("nobody")], wait=timedelta(milliseconds=50)
            )
    assert await database.fetchval("SELECT count(*) FROM quota_ledger") == 0
    assert await usage(database, "acme") == (0, 0)
