"""No list reads a whole table, whatever its filter: each statement's plan says how many rows it has looked at."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import combinations, product
from typing import Final

import aiohttp
import pytest

from infra.api import create_api
from infra.api.console import create_app
from infra.bench.console_rows import Amounts, fill
from infra.bench.console_views import BIG, FAILED_FILTERS, JOB_FILTERS, Caller, all_views
from infra.bench.plan_log import Reading, log_plans, readings
from infra.console.sessions import Sessions
from infra.local.servers import Postgres, start_postgres
from infra.migrations import upgrade
from infra.operations.job_search import COUNTED, JobFilter, count_jobs, find_jobs
from infra.postgres import Database
from infra.settings import Settings
from producers.replay.failed import FailedEvents, Filter
from tests.api_server import api_settings, bearer, serving_app
from tests.conftest import run_apart

# Three times what a count reads at most, so that a list of them all is told from one that is bounded.
_ROWS: Final = 3 * COUNTED
_AMOUNTS: Final = Amounts(
    jobs=_ROWS, organizations=100, failed_events=_ROWS, events_of_one_job=2_000, actions=_ROWS, scheduled=_ROWS
)
_BOUNDED: Final = 2 * COUNTED
# How many have some words is asked first, up to a number: of words that all have, that is told soonest by reading on.
_PROBE: Final = "SELECT count(*) FROM ( SELECT FROM job_words WHERE words @@"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server whose log has plans, with a database in which lists would be worth reading by an index."""
    with start_postgres(durable=False) as server:
        run_apart(_filled(server.url))
        yield server


async def _filled(url: str) -> None:
    await upgrade(url)
    await fill(url, _AMOUNTS)
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
        if one.rows > _BOUNDED or (one.node == "Seq Scan" and not one.statement.startswith(_PROBE))
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
    assert found == {}
    assert len(views) > 100


async def test_no_filter_of_jobs_reads_a_whole_table(postgres: Postgres, database: Database) -> None:
    """Every two fields of a filter, with values that many, few and no jobs have."""
    found = {}
    for fields in _pairs(JOB_FILTERS):
        order = "oldest" if fields.pop("order", None) else "newest"
        chosen = JobFilter.model_validate(fields)

        async def ask(chosen: JobFilter = chosen, order: str = order) -> None:
            await find_jobs(database, chosen, order="oldest" if order == "oldest" else "newest")
            await count_jobs(database, chosen)

        if offences := await reading(postgres, ask):
            found[f"{fields} {order}"] = offences
    assert found == {}


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
    assert found == {}


def _pairs(filters: dict[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    for first, second in combinations(filters, 2):
        for one, other in product(filters[first], filters[second]):
            yield {first: one, second: other}
