"""Facts on record, receivers on real sockets, and the webhooks stage's own handlers between them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import orjson
from aiohttp import web
from standardwebhooks import Webhook

from consumers.webhooks.handlers import Facts
from consumers.webhooks.receivers import Receivers
from consumers.webhooks.retries import DELAYS
from consumers.webhooks.sender import Sender
from infra.operations.webhooks import Secret, add_endpoint
from infra.postgres import Database
from infra.settings import Settings
from streams.delivery.brake import Brake
from streams.delivery.deliveries import Delivery, Record
from streams.delivery.failed_events import FailedEvents
from streams.jobs.events import JobEvent, JobId
from streams.jobs.facts import own_fact_id
from streams.jobs.organization_facts import BudgetReached
from streams.jobs.topics import JOB_EVENTS, read_fact, record
from tests.conftest import Pool
from tests.facts import completed, decide
from tests.integration.pipeline_world import MovingClock
from tests.served import served
from tests.waiting import wait_for

Answering: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

SETTINGS = Settings(webhook_allow_private=True, webhook_allow_http=True, _env_file=None)


async def taken(_request: web.Request) -> web.StreamResponse:
    """Answer as a good receiver does."""
    return web.Response(status=204)


def answers(status: int, headers: Mapping[str, str] | None = None) -> Answering:
    """Return what always answers so."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers, text="told you so")

    return answer


@dataclass
class Receiver:
    """A customer's server: it keeps what it gets, and answers as a test wants."""

    url: str = ""
    answer: Answering = taken
    got: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.got.append((request.headers, await request.read()))
        return await self.answer(request)

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.got]

    def verified(self, secret: str) -> list[Any]:
        """Return the bodies of all it got. Raises WebhookVerificationError if one is not signed with the secret."""
        return [Webhook(secret).verify(body, dict(_lower(headers))) for headers, body in self.got]


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Serve a receiver."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hooks", receiver.take)
    async with served(app) as address:
        receiver.url = f"{address}/hooks"
        yield receiver


async def on_record(pool: Pool, *facts: JobEvent) -> list[JobEvent]:
    """Have facts be true, and return them with the IDs that our stages give them."""
    true = [fact.model_copy(update={"id": own_fact_id(fact)}) for fact in facts]
    for fact in true:
        await pool.execute(
            "INSERT INTO job_owners (job_id, organization_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            *(fact.job_id, fact.data.organization_id),
        )
    await decide(pool, *true)
    return true


async def ended(pool: Pool, organization: str = "acme") -> JobEvent:
    """Have a job of an organization be completed."""
    (fact,) = await on_record(pool, completed(job=JobId(uuid4()), organization=organization))
    return fact


@dataclass
class Scene:
    """The stage's handlers on a real database, with a clock that the test moves."""

    pool: Pool
    database: Database
    clock: MovingClock = field(default_factory=MovingClock)
    brake: Brake = field(default_factory=Brake)

    def __post_init__(self) -> None:
        self.facts = Facts(self.database, self.clock, SETTINGS)
        self.receivers = Receivers(allow_private=True, timeout=timedelta(seconds=10))
        self.sender = Sender(
            self.database,
            self.clock,
            self.receivers,
            FailedEvents(self.database, self.clock),
            brake=self.brake,
            concurrency=20,
        )

    async def add(self, receiver: Receiver, organization: str = "acme", *types: str) -> Secret:
        more = (types,) if types else ()
        return await add_endpoint(self.database, SETTINGS, organization, receiver.url, *more)

    async def hear(self, fact: JobEvent | BudgetReached) -> None:
        """Take a fact as it comes from the broker."""
        await self.hear_record(record(JOB_EVENTS, fact))

    async def hear_record(self, one: Record) -> None:
        delivery = Delivery(one.topic, one.key, one.value, one.headers)
        await self.facts.handle(read_fact(delivery), delivery)

    async def send(self) -> int:
        """Send what is due, and wait for its end; return how many tries there were."""
        begun = 0
        while some := await self.sender.send_due():
            begun += some
            await asyncio.wait(set(self.sender._tries))
        return begun

    async def later(self, *, days: float = 0, seconds: float = 0) -> int:
        """Let time pass, and send."""
        self.clock.skipped += timedelta(days=days, seconds=seconds)
        return await self.send()

    async def row(self, endpoint_id: UUID) -> Mapping[str, Any]:
        row = await self.pool.fetchrow("SELECT * FROM webhook_deliveries WHERE endpoint_id = $1", endpoint_id)
        assert row is not None
        return dict(row)

    async def endpoint(self, endpoint_id: UUID) -> Mapping[str, Any]:
        row = await self.pool.fetchrow("SELECT * FROM webhook_endpoints WHERE id = $1", endpoint_id)
        assert row is not None
        return dict(row)

    async def given_up(self, receiver: Receiver, fact: JobEvent, *, slower: float = 1.0) -> None:
        """Have a receiver fail a delivery until the last try; each comes a little late, or later."""
        receiver.answer = answers(500)
        await self.hear(fact)
        await self.send()
        for delay in DELAYS:
            await self.later(seconds=1.11 * slower * delay.total_seconds())


@asynccontextmanager
async def scene_on(pool: Pool, database_url: str) -> AsyncIterator[Scene]:
    """Open a scene, with what the backend has of two customers."""
    for one in ("acme", "birch"):
        await pool.execute("INSERT INTO organizations (id, name, trust_score) VALUES ($1, $1, 1)", one)
    database = Database(database_url, size=5)
    scene = Scene(pool, database)
    try:
        yield scene
    finally:
        await scene.sender.close()
        await database.close()


def body(fact: JobEvent) -> Any:
    """What a fact says."""
    return orjson.loads(fact.encode())


async def arrives(receiver: Receiver, count: int) -> None:
    """Wait until a receiver has so much."""
    await wait_for(lambda: len(receiver.got) >= count, deadline_s=60, what=f"{count} webhooks to arrive")
