"""No list reads a whole table, whatever its filter: each statement's plan says how many rows it has looked at."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import combinations, product
from typing import Final
from uuid import UUID

import aiohttp
import asyncpg
import pytest

from infra.api import create_api
from infra.api.console import create_app
from infra.bench.console_rows import Amounts, fill
from infra.bench.console_views import BIG, FAILED_FILTERS, JOB_FILTERS, Caller, all_views
from infra.bench.plan_log import Reading, log_plans, readings
from infra.console.sessions import Sessions
from infra.local.servers import Postgres, start_postgres
from infra.migrations import upgrade
from infra.operations.job_search import COUNTED, JobFilter, JobPage, Order, count_jobs, find_jobs, list_jobs
from infra.postgres import Database
from infra.settings import Settings
from producers.replay.failed import FailedEvents, Filter
from tests.api_server import api_settings, bearer, serving_app
from tests.conftest import run_apart

# Three times what a count reads at most, so that a list of them all is told from one that is bounded.
_ROWS: Final = 3 * COUNTED
_AMOUNTS: Final = Amounts(
    jobs=_ROWS, organizations=1_000, failed_events=_ROWS, events_of_one_job=20_000, actions=_ROWS, scheduled=_ROWS
)
_BOUNDED: Final = 2 * COUNTED


# Of the newest jobs, more than are looked at for a page, none has the word that all others have.
_WITHOUT_A_WORD: Final = f"""
UPDATE job_words SET words = ts_delete(words, 'session') WHERE job_id IN (
    SELECT job_id::text FROM customization_jobs ORDER BY created_at DESC LIMIT {COUNTED + 500}
);
ANALYZE job_words
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server whose log has plans, with a database in which lists would be worth reading by an index."""
    with start_postgres(durable=False, in_memory=True) as server:
        run_apart(_filled(server.url))
        yield server


async def _filled(url: str) -> None:
    await upgrade(url)
    await fill(url, _AMOUNTS)
    connection = await asyncpg.connect(url)
    await connection.execute(_WITHOUT_A_WORD)
    # As little as it goes: a map of rows that needs more of it, as with millions of jobs, shows as rows that are read.
    await connection.execute("ALTER DATABASE teamfit SET work_mem = '64kB'")
    await connection.close()
    await log_plans(url)


@pytest.fixture
async def database(postgres: Postgres) -> AsyncIterator[Database]:
    """Connections whose plans are logged."""
    database = Database(postgres.url, size=2)
    yield database
    await database.close()


def wrong(found: Sequence[Reading]) -> list[str]:
    """Return what is no bounded reading of an index."""
    return [
        f"{one.node} on {one.table}, {one.rows:,} rows: {one.statement[:200]}"
        for one in found
        if one.rows > _BOUNDED or one.node == "Seq Scan"
    ]


async def reading(postgres: Postgres, ask: Callable[[], Awaitable[object]]) -> list[str]:
    """Return what is wrong with the plans of what is asked."""
    before = postgres.log.stat().st_size
    await ask()
    return wrong(readings(postgres.log, after=before))


@asynccontextmanager
async def callers(settings: Settings, secret: str) -> AsyncIterator[dict[Caller, aiohttp.ClientSession]]:
    """Give a client of the console and of the API for each kind of caller."""
    async with (
        serving_app(create_app(settings), settings) as console,
        serving_app(create_api(settings), settings) as operator,
        serving_app(create_api(settings), settings) as customer,
    ):
        console.headers["Cookie"] = f"teamfit_console={secret}"
        operator.headers.update(bearer(BIG, "operator"))
        customer.headers.update(bearer(BIG))
        yield {"console": console, "operator": operator, "customer": customer}


async def test_the_log_of_plans_sees_a_whole_table(postgres: Postgres, database: Database) -> None:
    """What reads all rows is found, or the tests below would prove nothing."""

    async def all_of_them() -> None:
        async with database.transaction() as connection:
            await connection.fetchval("SELECT max(error_message) FROM customization_jobs")

    assert await reading(postgres, all_of_them)


async def test_no_page_reads_a_whole_table(postgres: Postgres, database: Database, redis_url: str) -> None:
    """Every page of the console, and every list of the API, with every filter."""
    settings = api_settings(database_url=postgres.url, broker_url=redis_url)
    views = await all_views(database)
    secret = (await Sessions(database).begin("ann", "operator")).secret
    found = {}
    async with callers(settings, secret) as clients:
        for view in views:

            async def ask(client: aiohttp.ClientSession = clients[view.caller], path: str = view.path) -> None:
                async with client.get(path, allow_redirects=False) as answer:
                    assert answer.status == 200, (path, await answer.text())

            if offences := await reading(postgres, ask):
                found[str(view)] = offences
    assert not found, "\n".join(map(str, found.items()))
    assert len(views) > 100


async def test_no_filter_of_jobs_reads_a_whole_table(postgres: Postgres, database: Database) -> None:
    """Every two fields of a filter, with values that many, few and no jobs have."""
    found = {}
    for fields in _pairs(JOB_FILTERS):
        order = "oldest" if fields.pop("order", None) else "newest"
        chosen = JobFilter.model_validate(fields)

        async def ask(chosen: JobFilter = chosen, order: str = order) -> None:
            await list_jobs(database, chosen, order="oldest" if order == "oldest" else "newest")

        if offences := await reading(postgres, ask):
            found[f"{fields} {order}"] = offences
    assert not found, "\n".join(map(str, found.items()))


async def test_no_filter_of_failed_events_reads_a_whole_table(postgres: Postgres, database: Database) -> None:
    """Every two fields of a filter, as with jobs."""
    events, found = FailedEvents(database, database.clock), {}
    for fields in _pairs(FAILED_FILTERS):
        state = fields.pop("state", None)
        chosen = Filter.model_validate(fields)

        async def ask(chosen: Filter = chosen, state: str | None = state) -> None:
            wanted = next((one for one in ("open", "replayed", "discarded") if one == state), None)
            await events.page(chosen, state=wanted)

        if offences := await reading(postgres, ask):
            found[f"{fields} {state}"] = offences
    assert not found, "\n".join(map(str, found.items()))


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("organization", [None, BIG, "org-7"])
async def test_words_that_very_many_have_find_each_job_once(
    database: Database, organization: str | None, order: Order
) -> None:
    """Page by page, in order; a page that ends because enough was looked at says so, and the next one goes on."""
    chosen = JobFilter(words="session", organization_id=organization)
    wanted = """
        SELECT job.job_id FROM customization_jobs AS job JOIN job_words AS said ON said.job_id = job.job_id::text
        WHERE said.words @@ 'session'::tsquery AND ($1::text IS NULL OR job.organization_id = $1)
        ORDER BY job.created_at DESC, job.job_id DESC
    """
    found, cursor, pages = list[UUID](), None, list[JobPage]()
    while not pages or cursor is not None:
        page = await find_jobs(database, chosen, order=order, limit=500, cursor=cursor)
        found += [job.job_id for job in page.jobs]
        pages.append(page)
        cursor = page.next
    async with database.transaction() as connection:
        rows = [row["job_id"] for row in await connection.fetch(wanted, organization)]
    assert found == (rows if order == "newest" else rows[::-1])
    if organization is None and order == "newest":
        assert [(len(one.jobs), one.looked_at) for one in pages[:1]] == [(0, COUNTED)]


async def test_a_count_among_those_that_were_looked_at_says_so(database: Database) -> None:
    """Exact where all was looked at; else it is told as a least number, and never as the whole."""
    everywhere = JobFilter(words="session")
    assert str(await count_jobs(database, everywhere)) == "more than 10,000"
    partly = await count_jobs(database, everywhere.model_copy(update={"run": 1}))
    assert (str(partly), partly.partly) == ("at least 0", True)
    of_one = await count_jobs(database, everywhere.model_copy(update={"organization_id": "org-7"}))
    assert not of_one.partly
    assert 0 < of_one.number < COUNTED


async def test_a_list_says_what_a_page_and_a_count_say(database: Database) -> None:
    """Whether it looks for both at once or side by side: for each word, alone and with a field more."""
    others = [{}, *({name: value} for name, values in JOB_FILTERS.items() for value in values[:2] if name != "words")]
    for words, fields in product(JOB_FILTERS["words"], others):
        order: Order = "oldest" if "order" in fields else "newest"
        rest = {name: value for name, value in fields.items() if name != "order"}
        chosen = JobFilter.model_validate({"words": words, **rest})
        listed = await list_jobs(database, chosen, order=order)
        assert listed == (await find_jobs(database, chosen, order=order), await count_jobs(database, chosen)), chosen


async def test_a_list_reads_the_words_of_a_job_once(postgres: Postgres, database: Database) -> None:
    """Its page and its count look at the same jobs: twice was more than an operator would wait for."""
    before = postgres.log.stat().st_size
    page, count = await list_jobs(database, JobFilter(words="session", run=1))
    assert (page.looked_at, count.partly) == (COUNTED, True)
    read = [one.rows for one in readings(postgres.log, after=before) if one.table == "job_words"]
    to_know_that_many_have_them = COUNTED + 1
    assert sum(read) <= to_know_that_many_have_them + COUNTED


async def test_a_job_with_many_events_is_read_as_far_as_it_is_shown(
    postgres: Postgres, database: Database, redis_url: str
) -> None:
    """Its page and a page of its events read what they show. All events were read for the first 200 of them."""
    settings = api_settings(database_url=postgres.url, broker_url=redis_url)
    secret = (await Sessions(database).begin("ann", "operator")).secret
    async with database.transaction() as connection:
        job = await connection.fetchval("SELECT job_id FROM job_events GROUP BY 1 ORDER BY count(*) DESC LIMIT 1")
        last = await connection.fetchval("SELECT max(sequence) FROM job_events WHERE job_id = $1", job)
    asked: tuple[tuple[Caller, str, int], ...] = (
        ("console", f"/jobs/{job}", 250),
        ("console", f"/jobs/{job}/events", 101),
        ("console", f"/jobs/{job}/events?after={last - 150}", 150),
        ("operator", f"/api/ops/jobs/{job}", 250),
        ("operator", f"/api/ops/jobs/{job}/events?limit=50", 51),
    )
    async with callers(settings, secret) as clients:
        for caller, path, most in asked:
            before = postgres.log.stat().st_size
            async with clients[caller].get(path) as answer:
                assert answer.status == 200, await answer.text()
            read = [one for one in readings(postgres.log, after=before) if one.table == "job_events"]
            assert sum(one.rows for one in read) <= most, (path, read)


async def test_a_word_that_most_have_is_counted_without_listing_them(postgres: Postgres, database: Database) -> None:
    """The index of words lists all that have one before the first is counted: of five million that took 250 ms."""
    before = postgres.log.stat().st_size
    assert str(await count_jobs(database, JobFilter(words="session"))) == "more than 10,000"
    found = [one for one in readings(postgres.log, after=before) if one.table == "job_words"]
    assert [one.node for one in found] == ["Tid Range Scan"]
    # Those that few have, or nobody, are counted exactly.
    assert str(await count_jobs(database, JobFilter(words="kayaks"))) == f"{_ROWS // 20:,}"
    assert str(await count_jobs(database, JobFilter(words="session kayaks nowhere"))) == "0"


@pytest.mark.parametrize(
    "chosen",
    [
        {"error_code": "llm_timeout"},
        {"status": "failed", "run": 2},
        {"status": "failed", "error_code": "llm_timeout"},
        {"status": "cancelled", "error_code": "llm_timeout"},
        {"error_code": "llm_timeout", "run": 2},
        {"error_code": "llm_timeout", "run": 2, "status": "failed"},
        {"team_id": f"{BIG}-1", "run": 2, "status": "cancelled"},
        {"organization_id": BIG, "run": 2, "error_code": "llm_timeout"},
    ],
    ids=str,
)
async def test_jobs_that_meet_one_condition_alone_are_not_passed_by(
    postgres: Postgres, database: Database, chosen: dict[str, object]
) -> None:
    """However many meet each: of five million jobs a hundred thousand of run 2 were read for those with an error.

    No map of them all is made for the first of many, either.
    """
    before = postgres.log.stat().st_size
    _, count = await list_jobs(database, JobFilter.model_validate(chosen))
    found = [one for one in readings(postgres.log, after=before) if one.table == "customization_jobs"]
    assert sum(one.rows for one in found) <= 2 * count.number + 1


def _pairs(filters: dict[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    for first, second in combinations(filters, 2):
        for one, other in product(filters[first], filters[second]):
            yield {first: one, second: other}
