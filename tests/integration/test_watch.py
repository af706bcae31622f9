"""A process's watch makes due what was put aside for a pause that it had not yet heard the end of."""

from datetime import timedelta
from uuid import uuid4

import pytest

from infra.operations.controls import Wish, set_control, unset_control
from infra.postgres import Database
from streams.delivery.brake import Orders, put_aside_as
from streams.delivery.deliveries import Record
from streams.delivery.scheduled import keep
from streams.jobs.topics import JOB_REQUESTS
from streams.jobs.watch import Watch, Watched, brake_of
from tests.conftest import Pool
from tests.integration.quota_scene import add_organization

_MINUTE = timedelta(minutes=1)


async def _put_aside(database: Database, reason: str) -> bytes:
    key = str(uuid4()).encode()
    async with database.transaction() as connection:
        now = database.clock.now()
        await keep(connection, Record(JOB_REQUESTS, key, key, {}), now=now, due_at=now + _MINUTE, reason=reason)
    return key


async def _waits(pool: Pool, key: bytes) -> bool:
    return bool(await pool.fetchval("SELECT due_at > now() + '30 seconds' FROM scheduled_events WHERE key = $1", key))


@pytest.mark.parametrize("stage", ["quota", "generation"])
async def test_no_run_waits_its_minute_after_the_pause(postgres: Database, database: Pool, stage: str) -> None:
    """Behind a pooler a worker hears of the end up to a second late, and what it was at then is written later still."""
    await add_organization(database, "acme")
    theirs, others = put_aside_as(stage, "acme"), put_aside_as(stage, "birch")
    wish = Wish("pause", stage, organization_id="acme", reason="they asked")
    watch, brake = Watch(postgres, "worker"), brake_of(stage)
    watch.stages.append(Watched(stage, brake, lambda: 1, lambda: None, list, dict))
    session = await postgres.connect_apart()
    await set_control(postgres, wish)
    await watch._look(session)
    assert list(brake.orders.organizations) == ["acme"]
    before = await _put_aside(postgres, theirs)
    await watch._look(session)
    assert await _waits(database, before)
    await unset_control(postgres, wish)
    assert not await _waits(database, before)
    unheard, another = await _put_aside(postgres, theirs), await _put_aside(postgres, others)
    await watch._look(session)
    assert brake.orders == Orders()
    assert not await _waits(database, unheard)
    under_way = await _put_aside(postgres, theirs)
    await watch._look(session)
    assert not await _waits(database, under_way)
    assert await _waits(database, another)
    await session.close()
