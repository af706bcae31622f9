"""Failed events as the stages leave them, for the tests of replay: real letters, ledger and outcomes; no workers."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from consumers.quota.handlers import Facts, Requests
from infra.errors import Permanent
from infra.postgres import Database
from infra.settings import Settings
from producers.replay.apply import Replays
from producers.replay.failed import FailedEvents, Filter
from producers.replay.plans import Plan, Plans
from streams.delivery.dead_letters import dead_letter
from streams.delivery.deliveries import DEAD_LETTERS, Delivery, Record
from streams.delivery.failed_events import FailedEvents as Letters
from streams.delivery.letters import read_dead_letter
from streams.jobs.dispatch import Dispatcher
from streams.jobs.events import JobEvent, JobRequested, parse_event
from streams.jobs.outcomes import fail_run
from streams.jobs.stages import GENERATION, QUOTA
from streams.jobs.topics import JOB_ACCEPTED, JOB_EVENTS, JOB_REQUESTS, read_event, record
from streams.redis.dead_letter import Burial
from tests.conftest import Pool
from tests.integration.quota_scene import ManualClock, add_organization, request

REFUSAL = Permanent("llm_refusal", "the model would not")


@dataclass
class Topics:
    """A broker that keeps what it is given; it breaks after `breaks_after` publishes, before or after writing."""

    records: list[Record] = field(default_factory=list)
    breaks_after: int | None = None
    error: Exception = field(default_factory=lambda: RuntimeError("the process died here"))

    async def publish(self, records: Sequence[Record]) -> None:
        self.records += records
        if self.breaks_after is not None:
            self.breaks_after -= 1
            if self.breaks_after < 0:
                raise self.error

    def take(self, topic: str) -> list[Record]:
        """Remove and return what a topic has."""
        taken = [one for one in self.records if one.topic == topic]
        self.records = [one for one in self.records if one.topic != topic]
        return taken


@dataclass
class Scene:
    """The pipeline's tables, and the code of its stages to call by hand."""

    pool: Pool
    database: Database
    clock: ManualClock = field(default_factory=ManualClock)
    topics: Topics = field(default_factory=Topics)

    @property
    def failed(self) -> FailedEvents:
        return FailedEvents(self.database, self.clock)

    @property
    def plans(self) -> Plans:
        return Plans(self.database, self.clock)

    @property
    def replays(self) -> Replays:
        return Replays(self.database, self.topics, self.clock, release_limit=timedelta(seconds=0.5))

    async def organization(self, name: str = "acme", *, monthly_quota: int = 50) -> None:
        await add_organization(self.pool, name, monthly_quota=monthly_quota)

    async def admit(self, *requests: JobRequested) -> list[JobEvent]:
        """Take requests through the quota stage, and release what is admitted; return what follows."""
        handlers, told = Requests(self.database, self.clock, Settings(_env_file=None)), Topics()
        for asked in requests:
            await told.publish(await handlers.handle(asked, _delivered(asked)))
            await Dispatcher(self.database, told, window=10_000).release(sweep=True)
        return [parse_event(one.value) for one in told.records]

    async def settle(self) -> None:
        """Take what is on `job-events` through the quota stage."""
        handlers = Facts(self.database, self.clock, Settings(_env_file=None))
        for one in self.topics.take(JOB_EVENTS):
            await handlers.handle(read_event(_delivery(one)), _delivery(one))

    async def admit_replayed(self) -> list[JobEvent]:
        """Take what is on `job-requests` through the quota stage."""
        requests = [parse_event(one.value) for one in self.topics.take(JOB_REQUESTS)]
        return await self.admit(*(one for one in requests if isinstance(one, JobRequested)))

    async def failed_generation(self, organization: str = "acme", *, settled: bool = True) -> JobRequested:
        """A job that was admitted and whose run the generation stage gave up, with its quota released."""
        wanted = request(organization)
        (accepted,) = await self.admit(wanted)
        facts = await fail_run(self.database, self.clock, wanted, REFUSAL)
        await self.keep(
            dead_letter(Delivery(JOB_ACCEPTED, wanted.key, accepted.encode()), group=GENERATION, error=REFUSAL)
        )
        self.topics.records += facts
        if settled:
            await self.settle()
        return wanted

    async def poisoned_generation(self, organization: str = "acme") -> JobRequested:
        """A job that was admitted and whose event killed its worker too often: nobody has ended its run."""
        wanted = request(organization)
        (accepted,) = await self.admit(wanted)
        await self.keep(poison(JOB_ACCEPTED, GENERATION, wanted.key, accepted.encode()))
        return wanted

    async def keep(self, letter: Record) -> None:
        """Take a dead letter through the failures stage."""
        await Letters(self.database, self.clock).keep([read_dead_letter(_delivery(letter))])

    async def malformed(self, value: bytes = b'{"no": "event"}', *, group: str = QUOTA) -> None:
        """An entry by hand that is no event."""
        try:
            parse_event(value)
        except Exception as error:  # noqa: BLE001 - whatever the stage would put in its letter
            headers = {"attempt": b"2", "origin": b"\xff\x00", "note": b"by hand"}
            await self.keep(dead_letter(Delivery(JOB_REQUESTS, b"by-hand", value, headers), group=group, error=error))

    async def plan(self, **filters: object) -> Plan:
        return await self.plans.make(Filter.model_validate(filters), by="tester")

    async def apply(self, plan: Plan, *, rate: float = 10_000) -> Plan:
        return await self.replays.apply(plan.id, rate=rate)

    async def rows(self) -> list[asyncpg.Record]:
        """The failed events, oldest first."""
        return await self.pool.fetch("SELECT * FROM failed_events ORDER BY first_failed_at, id")

    async def failed_event_of(self, wanted: JobRequested) -> UUID:
        """The ID of a job's failed event."""
        found: UUID = await self.pool.fetchval("SELECT id FROM failed_events WHERE job_id = $1", wanted.job_id)
        return found


def poison(topic: str, group: str, key: bytes | None, value: bytes | None, *, at: datetime | None = None) -> Record:
    """The dead letter that the transport writes of an entry which was delivered too often."""
    why = Burial(
        topic=topic,
        group=group,
        entry_id="1-0",
        reason="max_deliveries",
        error="delivered 6 times",
        deliveries=6,
        time=at,
    )
    return Record(DEAD_LETTERS, key, value, why.headers())


@asynccontextmanager
async def open_scene(pool: Pool, url: str) -> AsyncIterator[Scene]:
    """A scene with one organization, on a connection of its own."""
    database = Database(url, size=4)
    scene = Scene(pool, database)
    await scene.organization()
    try:
        yield scene
    finally:
        await database.close()


def _delivered(event: JobRequested) -> Delivery:
    return _delivery(record(JOB_REQUESTS, event))


def _delivery(one: Record) -> Delivery:
    return Delivery(one.topic, one.key, one.value, one.headers)
