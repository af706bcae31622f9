"""Failed events of one cause stand in one group, whatever differs in their messages; counts are bounded and say so."""

from collections.abc import AsyncIterator
from typing import Final

import pytest

from infra.postgres import Database
from producers.replay.failed import FailedEvents, Filter
from producers.replay.failed_groups import LOOKED_AT, read_groups
from tests.conftest import Pool

_ADD: Final = """
INSERT INTO failed_events (
    id, topic, stage, reason, error_type, error_message, attempts, organization_id, first_failed_at, last_failed_at
)
SELECT gen_random_uuid(), 'job-accepted', $1, 'given_up', $2, replace($3, '%', one::text), 1, 'org-' || one % $4,
    now() - $5 * interval '1 hour' - interval '1 minute', now() - $5 * interval '1 hour' - interval '30 seconds'
FROM generate_series(1, $6::integer) AS one
"""


@pytest.fixture
async def reading(database_url: str) -> AsyncIterator[Database]:
    """The database as commands use it."""
    opened = Database(database_url, size=2)
    yield opened
    await opened.close()


async def _add(
    database: Pool, count: int, message: str, *, stage: str = "generation", organizations: int = 1, hours: int = 0
) -> None:
    await database.execute(_ADD, stage, "Permanent", message, organizations, hours, count)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("job 7c9e6679-7425-40de-944b-e07fc1f90ae7 failed", "job 0f9b9ad4-6f2c-4b0e-9a51-0d2d8e1c7a10 failed"),
        ("no answer in 3.5 s", "no answer in 12 s"),
        ("field 'title' is missing", "field 'a \"b\" c' is missing"),
        ('model "small" says no', 'model "large" says no'),
        ("trace 4bf92f3577b34da6a3ce929d0e0e4736", "trace 00000000000000000000000000000001"),
    ],
)
async def test_messages_that_differ_in_values_are_one_group(
    database: Pool, reading: Database, one: str, other: str
) -> None:
    """IDs, numbers and what stands in quotes do not part a group; another stage or another sentence does."""
    await _add(database, 1, one)
    await _add(database, 2, other)
    await _add(database, 1, one, stage="quota")
    await _add(database, 1, "something else")
    found = await read_groups(reading, Filter())
    assert (found.groups[0].count, found.groups[0].stage) == (3, "generation")
    assert (found.total, found.looked_at, found.more) == (3, 5, False)


async def test_a_group_tells_when_and_whose(database: Pool, reading: Database) -> None:
    """First, last, organizations, and the hours of a day; a filter and a state narrow it."""
    await _add(database, 8, "attempt % failed", organizations=4)
    await _add(database, 2, "attempt % failed", hours=3)
    await _add(database, 5, "attempt % failed", hours=30)
    (group,) = (await read_groups(reading, Filter())).groups
    assert (group.count, group.organizations, group.some_organizations) == (15, 4, ["org-0", "org-1", "org-2"])
    assert (group.by_hour[-1], group.by_hour[-4], sum(group.by_hour), len(group.by_hour)) == (8, 2, 10, 24)
    latest = await FailedEvents(reading, reading.clock).one(group.latest)
    assert latest.last_failed_at == group.last_failed_at > group.first_failed_at
    assert (await read_groups(reading, Filter(organization_id="org-3"))).groups[0].count == 2
    assert (await read_groups(reading, Filter(), state="discarded")).groups == []


async def test_counts_are_bounded_and_say_so(database: Pool, reading: Database) -> None:
    """Exactly the bound is exact; one more is more than the bound, in the list and in the groups."""
    failed = FailedEvents(reading, reading.clock)
    await _add(database, LOOKED_AT, "attempt % failed")
    page, found = await failed.page(Filter(), limit=1), await read_groups(reading, Filter())
    assert (page.counted, page.more, found.looked_at, found.more) == ("10,000", False, LOOKED_AT, False)
    await _add(database, 1, "another")
    page, found = await failed.page(Filter(), limit=1), await read_groups(reading, Filter())
    assert (page.counted, page.total, page.more) == ("more than 10,000", LOOKED_AT, True)
    assert (found.looked_at, found.more) == (LOOKED_AT, True)
