"""A customer's receiver of webhooks that flaps, and what must have arrived there when all has come to rest.

It answers in turn, a while each: as it should; with an error, having read all; with an error though it has taken the
event; with a wish for time; not at all, on a connection that it cuts. So tries fail in each way, and some that fail for
the sender have arrived.
"""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import aiosql
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from infra.operations.webhooks import add_endpoint, enable_endpoint
from infra.postgres import Database
from infra.settings import Settings
from tests.chaos.pipeline.system import Load, System
from tests.served import served

_queries: Any = aiosql.from_path(Path(__file__).with_name("audience.sql"), "asyncpg")

_SETTINGS = Settings(_env_file=None, webhook_allow_private=True, webhook_allow_http=True)
_WAYS = ("ok", "500", "ok", "taken, and 500", "ok", "429", "ok", "cut")
_WAY_S = 0.4
# What the broker has lost is looked for in the archive after two minutes, every half a minute.
_ARRIVED_S = 210.0
_HASTEN_S = 3.0


@dataclass
class Audience:
    """The receiver of a row's organization.

    Attributes:
        is_calm: whether it answers as it should from now on.
        requests: how many came, whatever was answered.
        bodies: those that it took, by the event's ID.
        wrong: what is wrong with a request, in words.
    """

    database: Database
    way: str = "ok"
    is_calm: bool = False
    secret: str = ""
    endpoint_id: UUID | None = None
    requests: int = 0
    bodies: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    wrong: list[str] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Answer a request as it is its turn."""
        way, body = "ok" if self.is_calm else self.way, await request.read()
        self.requests += 1
        if way == "cut":
            assert request.transport is not None
            request.transport.abort()
        elif way == "429":
            return web.Response(status=429, headers={"Retry-After": "1"})
        elif way != "500":
            self._keep(request, body)
        return web.Response(status=204 if way == "ok" else 500)

    def _keep(self, request: web.Request, body: bytes) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            Webhook(self.secret).verify(body, headers)
        except WebhookVerificationError as error:
            self.wrong.append(f"webhook {headers.get('webhook-id')} cannot be verified: {error}")
        self.bodies[headers["webhook-id"]].add(body)

    async def flap(self) -> None:
        """Answer in another way every moment."""
        for self.way in itertools.cycle(_WAYS):
            await asyncio.sleep(_WAY_S)

    async def objections(self, load: Load) -> Sequence[str]:
        """Have what waits sent at once, wait until all has arrived, and say what is wrong with what did."""
        self.is_calm = True
        assert self.endpoint_id is not None
        loop = asyncio.get_running_loop()
        end = loop.time() + _ARRIVED_S
        facts = await self._facts(load)
        while loop.time() < end and (not facts or any(at is None for _, at in facts.values())):
            # As an operator does once a receiver works again; tries would wait for minutes.
            await enable_endpoint(self.database, self.endpoint_id)
            await asyncio.sleep(_HASTEN_S)
            facts = await self._facts(load)
        ended = {job_id for job_id, _ in facts.values()}
        return [
            *self.wrong,
            *(f"{job_id} was accepted, and no webhook tells of its end" for job_id in load.accepted.keys() - ended),
            *(
                f"{job_id}: webhook {one} has never arrived"
                for one, (job_id, _) in facts.items()
                if one not in self.bodies
            ),
            *(
                f"{job_id}: webhook {one} is not noted as delivered"
                for one, (job_id, at) in facts.items()
                if at is None
            ),
            *(f"webhook {one} tells of no fact" for one in self.bodies.keys() - facts.keys()),
            *(f"webhook {one} came with {len(all_)} bodies" for one, all_ in self.bodies.items() if len(all_) > 1),
        ]

    async def _facts(self, load: Load) -> dict[str, tuple[UUID, object]]:
        """Return the archived ends of the organization's runs: the job of each, and when it was delivered."""
        async with self.database.connection() as connection:
            rows = _queries.facts(connection, organization_id=load.organization_id, endpoint_id=self.endpoint_id)
            return {row["event_id"]: (row["job_id"], row["delivered_at"]) async for row in rows}


@asynccontextmanager
async def audience(system: System, load: Load) -> AsyncIterator[Audience]:
    """Add a receiver for a row's organization, which flaps while the block lasts."""
    database = Database(system.grounds.postgres.url, size=1)  # past the proxy, which may be part of a fault
    one = Audience(database)
    app = web.Application()
    app.router.add_post("/hooks", one.take)
    try:
        async with served(app) as address:
            added = await add_endpoint(database, _SETTINGS, load.organization_id, f"{address}/hooks")
            one.secret, one.endpoint_id = added.secret, added.endpoint.id
            flapping = asyncio.create_task(one.flap())
            try:
                yield one
            finally:
                flapping.cancel()
                await asyncio.wait([flapping])
    finally:
        await database.close()
