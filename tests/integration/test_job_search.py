"""Finding jobs: each field of a filter, pages that neither overlap nor end early, counts that stop and say so."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError

from infra.errors import Refused
from infra.operations.job_content import archived_events, content_of
from infra.operations.job_search import Count, JobFilter, Order, count_jobs, find_jobs
from infra.postgres import Database
from tests.conftest import Pool
from tests.integration.pipeline_scene import Pipeline, pipeline_on
from tests.integration.quota_scene import add_organization


@pytest.fixture
async def pipeline(database: Pool, database_url: str) -> AsyncIterator[Pipeline]:
    """Stages with two organizations."""
    for name in ("acme", "birch"):
        await add_organization(database, name, monthly_quota=50)
    async with pipeline_on(database_url) as pipeline:
        yield pipeline


async def _found(database: Database, chosen: JobFilter, *, order: Order = "newest", limit: int = 2) -> list[UUID]:
    """Return all that a filter finds, page by page; the count agrees."""
    found: list[UUID] = []
    cursor = None
    while True:
        page = await find_jobs(database, chosen, order=order, limit=limit, cursor=cursor)
        found += [job.job_id for job in page.jobs]
        cursor = page.next
        if cursor is None:
            assert await count_jobs(database, chosen) == Count(len(found))
            return found
        assert len(page.jobs) == limit


async def test_each_field_finds_what_fits(pipeline: Pipeline, database: Pool) -> None:
    """Fields narrow one another; what nothing fits is empty."""
    done = await pipeline.complete(await pipeline.accept("acme"))
    failed = await pipeline.fail(await pipeline.accept("birch"))
    live = await pipeline.accept("acme")
    await database.execute(
        "UPDATE customization_jobs SET requirements = 'Paper boats, für Möwen' WHERE job_id = $1", done.job_id
    )
    code = await database.fetchval("SELECT error_code FROM customization_jobs WHERE job_id = $1", failed.job_id)
    (seen,) = (await find_jobs(pipeline.database, JobFilter(status="completed"))).jobs
    for chosen, wanted in (
        (JobFilter(), {done, failed, live}),
        (JobFilter(status="completed"), {done}),
        (JobFilter(status="failed"), {failed}),
        (JobFilter(status="cancelled"), set()),
        (JobFilter(organization_id="acme"), {done, live}),
        (JobFilter(organization_id="acme", status="completed"), {done}),
        (JobFilter(team_id=failed.data.team_id, organization_id="birch"), {failed}),
        (JobFilter(error_code=code), {failed}),
        (JobFilter(run=1), {done, failed, live}),
        (JobFilter(run=2), set()),
        (JobFilter(words="boats möwen"), {done}),
        (JobFilter(words='"paper boats" -planes'), {done}),
        (JobFilter(words="planes"), set()),
        (JobFilter(words="boats", organization_id="birch"), set()),
        (JobFilter(since=seen.created_at), {done, failed, live}),
        (JobFilter(until=seen.created_at), set()),
        (JobFilter(trace_id="0" * 32), set()),
    ):
        assert set(await _found(pipeline.database, chosen)) == {one.job_id for one in wanted}, chosen


async def test_pages_have_every_job_once_in_both_orders(pipeline: Pipeline, database: Pool) -> None:
    """Jobs of the same moment too: the order is by time and then by ID."""
    for _ in range(5):
        await pipeline.accept()
    await database.execute("UPDATE customization_jobs SET created_at = date_trunc('day', created_at)")
    newest = await _found(pipeline.database, JobFilter())
    assert len(set(newest)) == 5
    assert await _found(pipeline.database, JobFilter(), order="oldest") == newest[::-1]


async def test_a_wish_that_is_erased_is_found_by_its_words_no_more(pipeline: Pipeline, database: Pool) -> None:
    """The index of words follows each change of the wish."""
    job = await pipeline.accept()
    for wish, finds in (("Paper boats", True), ("(erased)", False), ("Boats", True), (None, False)):
        await database.execute("UPDATE customization_jobs SET requirements = $2 WHERE job_id = $1", job.job_id, wish)
        assert await _found(pipeline.database, JobFilter(words="boats")) == [job.job_id] * finds


async def test_what_is_no_filter_is_refused(pipeline: Pipeline) -> None:
    """A cursor that is none, a status that there is not, a field that is misspelt."""
    for cursor in ("nowhere", "ü", "", "a" * 10_000):
        with pytest.raises(Refused, match="cursor"):
            await find_jobs(pipeline.database, JobFilter(), cursor=cursor)
    for wrong in ({"status": "lost"}, {"colour": "red"}, {"words": "a\0b"}, {"trace_id": "x"}, {"run": 2**40}):
        with pytest.raises(ValidationError):
            JobFilter.model_validate(wrong)


async def test_a_job_has_its_content_and_events_by_page(pipeline: Pipeline) -> None:
    """Activities as the customer sees them; events in their order, none twice."""
    job = await pipeline.complete()
    content = await content_of(pipeline.database, job.job_id)
    assert [one.title for one in content.activities] == ["Puzzle 1", "Puzzle 2", "Puzzle 3"]
    assert (await content_of(pipeline.database, uuid4())).activities == []
    kinds, after = [], 0
    while True:
        page = await archived_events(pipeline.database, job.job_id, after=after, limit=1)
        kinds += [one.type for one in page.events]
        if page.next is None:
            break
        after = page.next
    assert kinds == ["teamfit.job.requested.v1", "teamfit.job.completed.v1"]


def test_a_count_that_stopped_says_so() -> None:
    """Ten thousand is exact, one more is "more than"."""
    assert str(Count.of(10_000)) == "10,000"
    assert str(Count.of(10_001)) == "more than 10,000"
