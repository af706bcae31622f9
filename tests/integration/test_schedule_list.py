"""What is published later is listed in the order in which it is due."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest

from infra.errors import Refused
from infra.operations.job_search import Count
from infra.operations.schedule import read_due
from infra.postgres import Database
from streams.delivery.deliveries import Record
from streams.delivery.scheduled import keep
from tests.commands import Run

_JOB = "0f9b9ad4-6f2c-4b0e-9a51-0d2d8e1c7a10"


@pytest.fixture
async def scheduled(database_url: str) -> AsyncIterator[Database]:
    """Five events: two overdue, and one with a key that is no text."""
    database = Database(database_url, size=2)
    async with database.transaction() as connection:
        now = database.clock.now()
        for number, hours in enumerate((3, -2, 1, -1, 2)):
            key = b"\xff\x00" if hours == 3 else _JOB.encode()
            topic = "job-accepted" if hours < 2 else "job-requests"
            what = Record(topic, key, str(number).encode(), {})
            await keep(connection, what, now=now, due_at=now + timedelta(hours=hours), reason=f"in {hours} h")
    yield database
    await database.close()


async def test_pages_have_each_once_the_soonest_first(scheduled: Database) -> None:
    """With how many there are and how many are overdue; a topic narrows all of it."""
    reasons, seen, cursor = [], set[UUID](), None
    while True:
        page = await read_due(scheduled, limit=2, cursor=cursor)
        assert (page.total, page.overdue) == (Count(5), Count(2))
        reasons += [one.reason for one in page.events]
        seen |= {one.id for one in page.events}
        cursor = page.next
        if cursor is None:
            break
    assert reasons == ["in -2 h", "in -1 h", "in 1 h", "in 2 h", "in 3 h"]
    assert len(seen) == 5
    of_topic = await read_due(scheduled, topic="job-requests")
    assert ([one.reason for one in of_topic.events], of_topic.overdue) == (["in 2 h", "in 3 h"], Count(0))
    with pytest.raises(Refused, match="cursor"):
        await read_due(scheduled, cursor="nowhere")


async def test_the_terminal_lists_them(scheduled: Database, teamfit: Run) -> None:
    """A key that is no text moves no cursor."""
    said = await teamfit("schedule", "list", "--limit", "5")
    printed = await teamfit("schedule", "list", "--json")
    assert said.exit_code == 0, said.output
    assert "5 scheduled, 2 of them overdue, 5 shown." in said.stdout
    assert _JOB in said.stdout
    assert "\x00" not in said.stdout
    assert (await read_due(scheduled)).total == Count(5)
    events = json.loads(printed.stdout)["events"]
    assert [(one["job_id"], one["key"]) for one in events[:4]] == [(_JOB, None)] * 4
    assert (events[4]["job_id"], events[4]["key"]) == (None, "\ufffd\x00")
