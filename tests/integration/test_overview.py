"""The overview: what it says of each state of the pipeline, what it costs, and that its three faces say the same."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import asyncpg
import pytest
from redis.asyncio import Redis

from infra.console import Console
from infra.console.sessions import Sessions
from infra.operations.controls import Process, Wish, set_control
from infra.operations.faults import Stages
from infra.operations.job_search import JobFilter, list_jobs
from infra.operations.overview import Overview, Overviews
from infra.operations.streams import Lag
from infra.postgres import Connection, Database
from infra.settings import Settings
from infra.verify import note, verify
from producers.broker import Broker
from producers.schedule.counts import Counts
from streams.redis.backlog import GroupBacklog, TopicBacklog
from tests.api_server import api_settings, bearer, serving, serving_app
from tests.commands import commands
from tests.conftest import Pool
from tests.integration.pipeline_scene import Pipeline, pipeline_on
from tests.integration.quota_scene import add_organization
from tests.waiting import wait_for

_OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"
_WORKER = """
INSERT INTO fleet_processes (process, kind, host, pid, version, stages, seen_at, rss_bytes, log_level, doing)
SELECT gen_random_uuid(), 'worker', 'h', 1, '1', ARRAY[stage], clock_timestamp() - $1::interval, 1, 'info',
    jsonb_build_array(jsonb_build_object(
        'stage', stage, 'under_way', 0, 'concurrency', 8, 'paused', null, 'held', $2::text, 'endpoints', '[]'::jsonb
    ))
FROM unnest($3::text[]) AS stage
"""
STAGES = ["quota", "generation", "projection", "failures", "webhooks", "schedule"]


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """Settings on servers of the test's own."""
    return api_settings(database_url=database_url, broker_url=redis_url)


class Watched(Database):
    """Notes every statement with its values, in the order in which they were sent."""

    def __init__(self, url: str) -> None:
        super().__init__(url, size=4)
        self.sent: list[tuple[str, tuple[Any, ...]]] = []

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False, for_values: bool = False) -> AsyncIterator[Connection]:
        async with super().transaction(snapshot=snapshot, for_values=for_values) as connection:
            with connection.query_logger(self._note):
                yield connection

    def _note(self, query: Any) -> None:
        self.sent.append((query.query, tuple(query.args)))


@asynccontextmanager
async def overviews(settings: Settings, database: Database | None = None) -> AsyncIterator[Overviews]:
    """Give a reader that has read nothing yet."""
    own = database or Database(settings.database_url, size=3)
    broker = Broker(settings, name="test")
    reader = Overviews(settings, own, broker)
    try:
        yield reader
    finally:
        await reader.close()
        await broker.close()
        if database is None:
            await own.close()


async def look(settings: Settings) -> Overview:
    """Return the overview as somebody sees it who has not looked before."""
    async with overviews(settings) as reader:
        return await reader.read()


async def live(database: Pool, stages: Sequence[str] = STAGES, *, silent_s: int = 0, held: str | None = None) -> None:
    """Have a worker of each of these stages tell of itself."""
    await database.execute(_WORKER, timedelta(seconds=silent_s), held, list(stages))


async def test_stalled_looks_different_from_idle(settings: Settings, database: Pool, database_url: str) -> None:
    """The same empty streams: with nothing to do it is idle, with a job at which nothing happens it is stalled."""
    await add_organization(database)
    await live(database)
    seen = await look(settings)
    assert (seen.state, list(seen.faults)) == ("idle", [])
    assert {one.state for one in seen.stages} == {"idle"}
    async with pipeline_on(database_url) as pipeline:
        await pipeline.accept()
    assert (await look(settings)).state == "at work"
    await database.execute("UPDATE job_events SET archived_at = now() - interval '1 hour'")
    seen = await look(settings)
    assert seen.state == "stalled"
    assert [(one.page.partition("?")[0], one.section) for one in seen.faults] == [("/jobs", "A job stands still")]


async def test_what_is_wrong_says_where_it_is_mended(settings: Settings, database: Pool, database_url: str) -> None:
    """Stages without worker, held, gone; a check that failed; each has a page of the console and a section."""
    await live(database, ["quota"], silent_s=60)
    await live(database, ["generation"], held="the LLM is away")
    await live(database, ["projection", "failures", "webhooks", "schedule"])
    await database.execute(
        "INSERT INTO verify_reports VALUES (now(), false, false, $1)",
        json.dumps([{"name": "counters = ledger", "violations": 2, "next_step": "Repair them."}]),
    )
    seen = await look(settings)
    states = {one.name: one.state for one in seen.stages}
    assert (states["quota"], states["generation"], states["projection"]) == ("absent", "held", "idle")
    assert (seen.state, seen.verified and seen.verified.ok) == ("held", False)
    says = " ".join(one.says for one in seen.faults)
    assert all(
        word in says for word in ("No worker of quota", "generation is held", "without a word", "counters = ledger")
    )
    assert [one.detail for one in seen.faults if one.detail] == ["the LLM is away"]
    unreachable = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    lost = await look(unreachable)
    assert lost.broker
    console = Console(settings, Database(database_url, size=1), Broker(settings, name="test"))
    pages = {getattr(one, "path", "") for one in console.routes}
    for fault in (*seen.faults, *lost.faults):
        assert fault.page.partition("?")[0] in pages
        assert f"\n## {fault.section}\n" in _OPERATING.read_text()


async def test_a_pause_is_no_fault(settings: Settings, database: Pool, database_url: str) -> None:
    """It says who paused what and why, for all or for one organization, and nothing is red."""
    await add_organization(database)
    await live(database)
    books = Database(database_url, size=1)
    await set_control(books, Wish("pause", "generation", reason="a bad prompt"))
    await set_control(books, Wish("pause", "quota", "acme", reason="they asked"))
    await books.close()
    seen = await look(settings)
    stages = {one.name: one for one in seen.stages}
    assert (seen.state, list(seen.faults)) == ("paused", [])
    assert stages["generation"].state == "paused"
    assert "a bad prompt" in str(stages["generation"].paused)
    assert (stages["quota"].state, list(stages["quota"].paused_for)) == ("idle", ["acme"])


def test_entries_that_no_living_worker_reads_are_stalled_after_a_while() -> None:
    """One look cannot tell them from entries that came a moment ago; those that stay can."""
    at = datetime(2031, 4, 15, tzinfo=UTC)
    doing = [{"stage": "quota", "under_way": 0, "concurrency": 8, "paused": None, "held": None}]
    worker = Process("p", "worker", "h", 1, "1", ["quota"], at, at, None, 1, "info", doing, 0.0)
    stages = Stages(timedelta(minutes=10))

    def state(waiting: int, after_s: int, oldest_s: float | None = None) -> str:
        oldest = None if oldest_s is None else timedelta(seconds=oldest_s)
        group = GroupBacklog("quota", 1, 0 if oldest is None else 1, waiting, oldest)
        lag = Lag([TopicBacklog("job-requests", 5, [group], [])], [])
        return stages.look(at + timedelta(seconds=after_s), [worker], [], lag, None, 0)[0].state

    assert [state(1, 0), state(1, 10), state(1, 20)] == ["at work", "at work", "stalled"]
    assert [state(0, 22), state(1, 24), state(1, 30)] == ["idle", "at work", "at work"]
    assert [state(0, 40, oldest_s=500), state(0, 42, oldest_s=700)] == ["at work", "stalled"]


async def test_the_three_faces_show_the_same(
    settings: Settings, database: Pool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API, the command and the page: jobs, charts, money, failed events by kind."""
    await add_organization(database)
    await live(database)
    now = Database(database_url, size=2)
    async with pipeline_on(database_url) as pipeline:
        await _history(pipeline, database)
    await Counts(now, now.clock).count()
    await database.execute(
        "INSERT INTO llm_usage (organization_id, period, calls, prompt_tokens, completion_tokens, maybe_billed_calls) "
        "SELECT one, to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM'), 2, 10, 20, 0 FROM unnest(ARRAY['a', 'b']) AS one"
    )
    async with serving(settings) as http:
        async with http.get("/api/ops/overview", headers=bearer("ops", "operator")) as answer:
            assert answer.status == 200, await answer.text()
            told = await answer.json()
        for token in ("jobs", "viewer"):
            async with http.get("/api/ops/overview", headers=bearer("ops", token)) as answer:
                assert answer.status == 403
    teamfit = commands(monkeypatch, DATABASE_URL=database_url, BROKER_URL=settings.broker_url)
    said, shown = await teamfit("top", "--json"), await teamfit("top", "--once")
    assert (said.exit_code, shown.exit_code) == (0, 0), said.output + shown.output
    printed = json.loads(said.stdout)
    assert told["history"]["periods"] == printed["history"]["periods"]
    assert told["history"]["periods"][0]["completed"] == 3
    assert told["history"]["days"][-1]["completed"] == 3
    assert told["spend"]["calls"] == printed["spend"]["calls"] == 4
    assert told["state"] == printed["state"] == "idle"
    assert all(word in shown.stdout for word in ("Idle", "24 h", "generation", "ended in 90 days"))
    await now.close()
    async with _console(settings, Database(database_url, size=3)) as (http, sessions):
        cookie = {"Cookie": f"teamfit_console={(await sessions.begin('ann', 'viewer')).secret}"}
        async with http.get("/", headers=cookie) as answer:
            page = await answer.text()
    assert 'aria-label="Ended in 90 days, by day: 3 completed, 0 failed, 0 cancelled' in page
    assert "<strong>Idle</strong>" in page


async def test_a_broker_that_forgot_everything_takes_no_history_along(
    settings: Settings, database: Pool, database_url: str
) -> None:
    """The console starts anew with an empty broker: jobs, charts of 90 days, money and failed events are the same."""
    await add_organization(database)
    await live(database)
    now = Database(database_url, size=2)
    async with pipeline_on(database_url) as pipeline:
        await _history(pipeline, database)
    await Counts(now, now.clock).count()
    async with Redis.from_url(settings.broker_url) as redis:
        await redis.xadd("job-requests", {"event": "x"})
        before = await look(settings)
        jobs = await list_jobs(now, JobFilter())
        await redis.flushdb()
    after = await look(settings)
    assert (len(jobs[0].jobs), before.history.days[-1].completed) == (3, 3)
    assert await list_jobs(now, JobFilter()) == jobs
    assert (after.history.days, after.history.periods, after.spend, after.failed) == (
        *(before.history.days, before.history.periods, before.spend, before.failed),
    )
    await now.close()


async def _history(pipeline: Pipeline, database: Pool) -> None:
    for _ in range(3):
        await pipeline.complete()
    await database.execute(
        "UPDATE customization_jobs SET created_at = now() - interval '20 seconds', completed_at = now()"
    )


@asynccontextmanager
async def _console(settings: Settings, database: Database) -> AsyncIterator[tuple[aiohttp.ClientSession, Sessions]]:
    broker = Broker(settings, name="test")
    console = Console(settings, database, broker)
    async with serving_app(console, settings) as http:
        yield http, Sessions(database)
        await console.close()
    await broker.close()
    await database.close()


async def test_fifty_tabs_cost_what_one_does_and_none_nothing(settings: Settings, database: Pool) -> None:
    """Each with a session of its own. Statements are counted over three looks of the page, whoever follows it."""
    watched = Watched(settings.database_url)
    await live(database)

    def looks() -> int:
        return sum("FROM fleet_processes ORDER BY" in statement for statement, _ in watched.sent)

    async def cost_of(tabs: int, http: aiohttp.ClientSession, sessions: Sessions) -> int:
        async with AsyncExitStack() as stack:
            for number in range(tabs):
                session = await sessions.begin(f"ann-{number}", "operator")
                cookie = {"Cookie": f"teamfit_console={session.secret}"}
                answer = await stack.enter_async_context(http.get("/live/", headers=cookie))
                assert await answer.content.readuntil(b"data: ")
            before = looks()
            await wait_for(lambda: looks() > before, deadline_s=60, what="a look after all tabs are open")
            began, seen = len(watched.sent), looks()
            await wait_for(lambda: looks() >= seen + 3, deadline_s=60, what="three looks")
            return len(watched.sent) - began

    async with _console(settings, watched) as (http, sessions):
        one = await cost_of(1, http, sessions)
        fifty = await cost_of(50, http, sessions)
        assert one > 10
        assert fifty <= 2 * one
        left, since = len(watched.sent), monotonic()

        def quiet() -> bool:
            nonlocal left, since
            if len(watched.sent) != left:
                left, since = len(watched.sent), monotonic()
            return monotonic() - since > 5

        # A tab that is hidden has closed its stream. Whoever looks has the page read every two seconds.
        await wait_for(quiet, deadline_s=60, what="five seconds without a statement")


_LARGE = (
    *("customization_jobs", "job_events", "failed_events", "scheduled_events", "job_counts", "llm_usage", "llm_hours"),
    *("verify_reports", "operator_actions", "generation_attempts", "job_requests", "quota_ledger"),
)


async def test_no_statement_of_the_overview_reads_a_whole_table(settings: Settings, database_url: str) -> None:
    """Each has an index to read from for every table that grows: none is read as a whole where that is forbidden."""
    watched = Watched(database_url)
    async with overviews(settings, watched) as reader:
        await reader.read()
    counts = Counts(watched, watched.clock)
    await counts.count()
    await counts.count()
    await watched.close()
    connection = await asyncpg.connect(database_url)
    await connection.execute("SET enable_seqscan = off")
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=str, decoder=str, schema="pg_catalog")
    try:
        explained = 0
        for statement, values in dict(watched.sent).items():
            if not statement.lstrip().upper().startswith(("SELECT", "WITH", "INSERT", "DELETE")):
                continue
            plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}", *values))
            explained += 1
            read = [table for table in _LARGE if f"Seq Scan on {table} " in plan]
            assert not read, f"{statement}\n{plan}"
        assert explained > 12
    finally:
        await connection.close()


async def test_verify_says_what_it_found_last(settings: Settings, database_url: str, database: Pool) -> None:
    """Its row is written apart from the check; a session that may only read writes none, and the report is the same."""
    connection = await asyncpg.connect(database_url)
    try:
        report = await verify(connection)
        assert await note(connection, report) is None
        await connection.execute("SET default_transaction_read_only = on")
        assert "read-only" in str(await note(connection, report))
    finally:
        await connection.close()
    seen = await look(settings)
    assert seen.verified is not None
    assert (seen.verified.ok, seen.verified.at, list(seen.verified.violated)) == (True, report.at, [])
    assert await database.fetchval("SELECT count(*) FROM verify_reports") == 1
