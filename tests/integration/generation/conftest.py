"""A generation stage's handlers on a real Postgres and a real HTTP endpoint that can be told to misbehave."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, TypeAlias
from uuid import uuid4

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from pydantic import SecretStr
from redis.asyncio import Redis

from consumers.generation.handlers import Generation
from consumers.generation.line import Line
from consumers.generation.route import Route
from consumers.generation.runs import Handover
from infra.clock import SystemClock
from infra.errors import DependencyDown
from infra.local.llm.limits import Limiter
from infra.local.llm.server import create_app
from infra.local.servers import Postgres
from infra.postgres import Database
from infra.settings import Settings
from streams.delivery.deliveries import Delivery, Record
from streams.delivery.failed_events import FailedEvents
from streams.delivery.policy import RetryPolicy
from streams.delivery.scheduled import ScheduledRetries
from streams.delivery.seal import Seal
from streams.delivery.settle import Settler
from streams.delivery.stage import Stage
from streams.jobs.events import Accepted, JobAccepted, JobId, fact_id
from streams.jobs.topics import JOB_ACCEPTED, expecting
from tests.conftest import run_apart
from tests.waiting import wait_for

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

_FILLED_BY_MIGRATIONS = ["teamfit_schema_version", "seal_key", "dispatch_clock"]

ORGANIZATION = "org-1"
TEAM = "team-1"
ENTRY = "job-accepted/0/1-0"


@pytest.fixture(scope="session")
def _shared_database_url(postgres_server: Postgres, _migrated_template: str) -> str:
    """The URL of one database for all tests of this folder: to make one takes longer than most of them."""

    async def make() -> None:
        connection = await asyncpg.connect(postgres_server.url)
        try:
            await connection.execute(f"CREATE DATABASE generation TEMPLATE {_migrated_template}")
        finally:
            await connection.close()

    run_apart(make())
    return postgres_server.url_of("generation")


@pytest.fixture
async def database_url(_shared_database_url: str) -> str:
    """The URL of a database with the current schema and no rows but those of the migrations."""
    connection = await asyncpg.connect(_shared_database_url)
    try:
        tables = await connection.fetch(
            "SELECT quote_ident(tablename) AS name FROM pg_tables WHERE schemaname = 'public' AND tablename <> ALL($1)",
            _FILLED_BY_MIGRATIONS,
        )
        # Neither in the order of the foreign keys, nor through the triggers.
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("; ".join(f"DELETE FROM {table['name']}" for table in tables))
    finally:
        await connection.close()
    return _shared_database_url


@dataclass
class Published:
    """A broker that keeps what it is given, and is away while `error` is set. `meanwhile` runs during a write."""

    records: list[Record] = field(default_factory=list)
    error: Exception | None = None
    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def publish(self, records: Sequence[Record]) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        if self.error is not None:
            raise self.error
        self.records += records


@dataclass
class Endpoint:
    """The offline LLM endpoint of a test. `headers` go out with each of its answers."""

    port: int
    headers: dict[str, str]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def tell(self, mode: str, **more: object) -> None:
        async with aiohttp.ClientSession() as session:
            order = {"mode": mode, **more}
            async with session.put(f"http://127.0.0.1:{self.port}/control", json=order) as response:
                assert response.status == 200, await response.text()

    async def busy(self) -> bool:
        """Whether a call is waiting for its answer."""
        return bool((await self.calls())["in_flight"])

    async def calls(self) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}/control") as response,
        ):
            counted: dict[str, Any] = (await response.json())["calls"]
            return counted


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """An offline LLM endpoint of the test's own, without latency."""
    async with offline_endpoint() as serving:
        yield serving


@pytest.fixture
async def other_endpoint() -> AsyncIterator[Endpoint]:
    """A second one."""
    async with offline_endpoint() as serving:
        yield serving


@asynccontextmanager
async def offline_endpoint(limiter: Limiter | None = None, latency_s: float = 0.0) -> AsyncIterator[Endpoint]:
    """Serve an offline LLM endpoint, which may be a strict one."""
    app, headers = create_app(limiter=limiter, latency_s=latency_s), dict[str, str]()

    async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(headers)

    app.on_response_prepare.append(add_headers)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield Endpoint(runner.addresses[0][1], headers)
    finally:
        await runner.cleanup()


@dataclass
class StageUnderTest:
    """The handlers and what stands around them."""

    generation: Generation
    published: Published
    database: Database
    settings: Settings

    @property
    def line(self) -> Line:
        """The first endpoint, as this worker knows it."""
        return self.generation._route.lines[0]

    async def handle(self, event: JobAccepted, entry: str = ENTRY) -> Sequence[Record]:
        """Take a delivery; by default every event comes as the same entry each time."""
        await entered(self.database, event)
        return await self.generation.handle(event, _delivery(event, entry))

    async def _handle_entered(self, event: JobAccepted, delivery: Delivery) -> Sequence[Record]:
        await entered(self.database, event)
        return await self.generation.handle(event, delivery)

    async def give_up(self, event: JobAccepted, error: Exception) -> Sequence[Record]:
        """Give up a delivery."""
        await entered(self.database, event)
        return await self.generation.give_up(event, _delivery(event, ENTRY), error)

    def wrapped(self) -> Stage[JobAccepted]:
        """Return the handlers in the wrapper that gives each delivery an outcome; its retries are due at once."""
        return Stage(
            decode=expecting(JobAccepted),
            handle=self._handle_entered,
            settler=Settler(
                group="generation",
                publisher=self.published,
                retries=ScheduledRetries(self.database, SystemClock()),
                failed_events=FailedEvents(self.database, SystemClock()),
                give_up=self.generation.give_up,
            ),
            opened=Seal(self.database).opened,
            policy=RetryPolicy(max_attempts=3, base=timedelta(milliseconds=1), cap=timedelta(milliseconds=1)),
            timeout=timedelta(seconds=30),
        )


def _delivery(event: JobAccepted, entry: str) -> Delivery:
    return Delivery(JOB_ACCEPTED, event.key, event.encode(), entry=entry)


async def entered(database: "Database | Pool", event: JobAccepted) -> None:
    """Have quota reserve a unit for the run, without which a worker takes its event for forged."""
    insert = (
        (
            "INSERT INTO quota_ledger (job_id, run, organization_id, period, state, decided_at)"
            " VALUES ($1, $2, $3, '2031-04', 'reserved', now()) ON CONFLICT DO NOTHING"
        ),
        *(event.job_id, event.run, event.data.organization_id),
    )
    if isinstance(database, Database):
        async with database.transaction() as connection:
            await connection.execute(*insert)
    else:
        await database.execute(*insert)


Starter: TypeAlias = Callable[..., Awaitable[StageUnderTest]]


@pytest.fixture
async def start_stage(database_url: str, endpoint: Endpoint) -> AsyncIterator[Starter]:
    """Make a stage's handlers, as one more worker process would have them; keyword arguments are settings."""
    cleanup: list[Callable[[], Awaitable[None]]] = []

    async def start(**overrides: object) -> StageUnderTest:
        settings = Settings.model_validate(
            {
                "openai_api_key": SecretStr("test"),
                "openai_base_url": endpoint.base_url,
                "database_url": database_url,
                **overrides,
            }
        )
        database = Database(settings.database_url, size=5)
        route = Route.of(settings, database, SystemClock(), connections=400)
        published = Published()
        cleanup.extend((route.close, database.close))
        clock = SystemClock()
        generation = Generation(database=database, route=route, publisher=published, clock=clock, settings=settings)
        return StageUnderTest(generation, published, database, settings)

    yield start
    for close in cleanup:
        await close()


_NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
WorkerStarter: TypeAlias = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def start_worker(
    database_url: str, redis_url: str, endpoint: Endpoint, team: str
) -> AsyncIterator[WorkerStarter]:
    """Start worker processes on the test's own servers; they are stopped at the end as an orchestrator would."""
    processes: list[asyncio.subprocess.Process] = []

    async def start(*, variables: Mapping[str, str] = _NO_VARIABLES, **transport: str) -> asyncio.subprocess.Process:
        query = "&".join(f"{name}={value}" for name, value in {"drain": "500ms", **transport}.items())
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "faust", "-A", "consumers.generation", "worker", "-l", "warn"),
            env={
                **os.environ,
                "DATABASE_URL": database_url,
                "BROKER_URL": f"{redis_url}?{query}",
                "OPENAI_API_KEY": "test",
                "OPENAI_BASE_URL": endpoint.base_url,
                **variables,
            },
        )
        processes.append(process)
        return process

    yield start
    running = [process for process in processes if process.returncode is None]
    for process in running:
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(asyncio.gather(*(process.wait() for process in running)), 30)
    except TimeoutError:
        for process in running:
            process.kill()
            await process.wait()
        raise


async def write(redis_url: str, topic: str, *values: bytes) -> None:
    """Write entries as any service would."""
    async with Redis.from_url(redis_url) as client:
        for value in values:
            await client.execute_command("XADD", topic, "*", "key", "k", "event", value)


@pytest.fixture
async def stage(start_stage: Starter, team: str) -> StageUnderTest:
    """One worker's handlers, and a team to generate for."""
    return await start_stage()


@pytest.fixture
async def team(database: Pool) -> str:
    """An organization with one team that has two materials."""
    await database.execute(
        "INSERT INTO organizations (id, name) VALUES ($1, 'Ours'), ('org-2', 'Theirs')", ORGANIZATION
    )
    await database.execute(
        "INSERT INTO teams (id, organization_id, name, size, description)"
        " VALUES ($1, $2, 'Platform', 8, 'Remote engineers'), ('team-2', 'org-2', 'Others', 3, NULL)",
        TEAM,
        ORGANIZATION,
    )
    await database.execute(
        "INSERT INTO team_materials (team_id, title, content)"
        " VALUES ($1, 'Values', 'We like puzzles.'), ($1, 'Survey', 'Meetings are too long.'),"
        " ('team-2', 'Secret', 'theirs alone')",
        TEAM,
    )
    return TEAM


async def die_in_a_call(start_stage: Starter, endpoint: Endpoint, event: JobAccepted) -> None:
    """Let a worker of its own take the event, and die while the endpoint works on it."""
    await endpoint.tell("slow")
    dying = asyncio.create_task((await start_stage()).handle(event))
    await wait_for(endpoint.busy, what="the call")
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    await endpoint.tell("ok")


async def end_hold(stage: StageUnderTest) -> None:
    """Let calls through again, without a probe."""
    async with stage.database.transaction() as connection:
        await connection.execute("DELETE FROM llm_holds")
    stage.line.hold.learn(None)


async def hold_is_due(*stages: StageUnderTest) -> None:
    """Let the wait of a hold be over, so that the next delivery probes."""
    async with stages[0].database.transaction() as connection:
        await connection.execute("UPDATE llm_holds SET next_probe_at = clock_timestamp()")
    for stage in stages:
        stage.line.hold._until = 0.0


async def eventually(stage: StageUnderTest, event: JobAccepted) -> Sequence[Record]:
    """Take a delivery again, each time that a probe is due, until the stage is held no longer."""

    async def taken() -> Sequence[Record]:
        try:
            return await stage.handle(event)
        except DependencyDown:
            await hold_is_due(stage)
            return ()

    return await wait_for(taken, what="the hold to end")


def handovers(*events: JobAccepted) -> list[Handover]:
    """Return these events as handed over by the broker."""
    return [(event, ENTRY) for event in events]


def accepted(
    *,
    job_id: JobId | None = None,
    run: int = 1,
    team_id: str = TEAM,
    organization_id: str = ORGANIZATION,
    requirements: str = "A remote hour that builds trust.",
) -> JobAccepted:
    """Return the event that starts a run."""
    job_id = job_id or JobId(uuid4())
    return JobAccepted(
        id=fact_id(job_id, run, "accepted"),
        subject=job_id,
        time=datetime.now(UTC),
        run=run,
        data=Accepted(organization_id=organization_id, team_id=team_id, requirements=requirements),
    )
