"""One organization's long transaction, and the others that go on meanwhile. Orders are looked at, not times."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from consumers.quota import lanes
from consumers.quota.admission import Admission, Admissions
from consumers.quota.lanes import Lanes
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
from tests.waiting import wait_for

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


def admitting(postgres: Database, *, max_size: int = 200) -> Lanes[JobRequested, Admission]:
    """A worker's admission."""
    admissions = Admissions(postgres, ManualClock(), trust_threshold=0.5)
    return Lanes(
        admissions.admit,
        admissions.admit_free,
        owner=lambda one: one.data.organization_id,
        max_size=max_size,
        timeout_s=30,
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
    """Requests of one batch: those of the others are decided while the locked one's wait."""
    worker = admitting(postgres)
    async with locked(database, "birch"):
        asked = [request(name) for name in ("birch", "acme", "birch", "cedar", "birch", "acme")]
        answers = [asyncio.create_task(worker.submit(one)) for one in asked]
        others = [answer for one, answer in zip(asked, answers, strict=True) if one.data.organization_id != "birch"]
        accepted = facts(await asyncio.gather(*others))
        # Nor does what comes later, of whomever.
        late_other, late = request("cedar"), asyncio.create_task(worker.submit(request("birch")))
        accepted += facts([await worker.submit(late_other)])
        assert all(isinstance(one, JobAccepted) for one in accepted)
        assert not any(answer.done() for answer in answers if answer not in others)
        assert not late.done()
        assert [await usage(database, name) for name in ORGANIZATIONS] == [(2, 0), (0, 0), (2, 0)]
    assert all(isinstance(one, JobAccepted) for one in facts(await asyncio.gather(*answers, late)))
    assert await usage(database, "birch") == (4, 0)


async def test_an_organization_keeps_its_order_in_its_lane(postgres: Database, database: Pool) -> None:
    """With five units left, the five who asked first get them, though all had to wait."""
    worker = admitting(postgres)
    async with locked(database, "birch"):
        first = [asyncio.create_task(worker.submit(request("birch"))) for _ in range(4)]
        await wait_for(lambda: "birch" in worker._lanes, what="the lane")
        second = [asyncio.create_task(worker.submit(request("birch"))) for _ in range(4)]
        await worker.submit(request("acme"))
    told = facts(await asyncio.gather(*first, *second))
    assert [isinstance(one, JobAccepted) for one in told] == [True] * 5 + [False] * 3
    assert not worker._lanes


async def test_settlement_waits_for_nobody_else_either(postgres: Database, database: Pool) -> None:
    """Facts of one batch: units of the others are charged and released while one organization's counter is locked."""
    asked = {name: request(name) for name in ORGANIZATIONS}
    await Admissions(postgres, ManualClock(), trust_threshold=0.5).admit(list(asked.values()))
    settlements = Settlements(postgres, ManualClock())
    worker: Lanes[TerminalFact, None] = Lanes(
        settlements.settle,
        settlements.settle_free,
        owner=lambda one: one.data.organization_id,
        max_size=200,
        timeout_s=30,
    )
    async with locked(database, "birch"):
        waiting = asyncio.create_task(worker.submit(completed(asked["birch"])))
        await asyncio.gather(worker.submit(completed(asked["acme"])), worker.submit(failed(asked["cedar"])))
        assert [await state(database, one) for one in asked.values()] == ["charged", "reserved", "released"]
        assert not waiting.done()
    await waiting
    assert [await usage(database, name) for name in ORGANIZATIONS] == [(0, 1), (0, 1), (0, 0)]


async def test_few_wait_in_the_worker_and_not_for_long(
    postgres: Database, database: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the agents may wait for a locked counter; the rest, and those who have waited long, come again later."""
    monkeypatch.setattr(lanes, "_LONGEST_WAIT", timedelta(milliseconds=500))
    worker = admitting(postgres, max_size=8)
    async with locked(database, "birch"):
        answers = [asyncio.create_task(worker.submit(request("birch"))) for _ in range(8)]
        early, _ = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        assert len(early) == 4
        assert all(isinstance(one, Postponed) for one in await asyncio.gather(*answers, return_exceptions=True))
    assert facts([await worker.submit(request("birch"))])
    assert await usage(database, "birch") == (1, 0)


async def test_many_locked_organizations_do_not_use_up_the_connections(postgres: Database, database: Pool) -> None:
    """However many counters are locked, one that is free is had."""
    worker = admitting(postgres)
    names = [f"locked-{number}" for number in range(20)]
    for name in names:
        await add_organization(database, name)
        await database.execute("INSERT INTO quota_usage (organization_id, period) VALUES ($1, $2)", name, PERIOD)
    async with locked(database, *names):
        waiting = [asyncio.create_task(worker.submit(request(name))) for name in names]
        assert facts([await worker.submit(request("acme"))])
        await wait_for(lambda: sum(one.done() for one in waiting) == len(names) - 3, what="the others to be put off")
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(one, Postponed) for one in told) == len(names) - 3


async def test_an_organization_without_a_counter_gets_one(postgres: Database, database: Pool) -> None:
    """The first request of a new organization is admitted, also in a batch that finds another one locked."""
    await add_organization(database, "new")
    worker = admitting(postgres)
    async with locked(database, "birch"):
        waiting = asyncio.create_task(worker.submit(request("birch")))
        told = facts([await worker.submit(request("new"))])
        assert not waiting.done()
    await waiting
    assert isinstance(told[0], JobAccepted)
    assert await usage(database, "new") == (1, 0)


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
