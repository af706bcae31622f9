"""Our pipeline as a system under test: two API processes and two of each stage, behind the proxies."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import aiosql
from pydantic import ValidationError
from redis.exceptions import RedisError

from infra.errors import DependencyDown
from infra.local.processes import LocalServerError
from infra.local.stack import ALL, API, WORKERS, Stack
from infra.postgres import Database
from infra.settings import Settings
from infra.verify import CheckTimedOut, verify
from producers.client import JobRequests, Request
from tests.acceptance.customer import hand_written
from tests.chaos.pipeline.grounds import LLM_LATENCY_S, Grounds
from tests.chaos.pipeline.system import Books, Load
from tests.chaos.pipeline.unmoved import unmoved

_queries: Any = aiosql.from_path(Path(__file__).with_name("teamfit.sql"), "asyncpg")
_KINDS = (API, *WORKERS)
_WISH = "Something outdoors for 6 people, about 45 minutes"
_POLL_S = 0.25

# Alembic keeps what it works on in its module, so two fleets cannot migrate at the same time.
_starting = asyncio.Lock()

LEASE_S = 2.0
# Short limits, so that every way of waiting is met within a round; between each other they stand as the defaults do.
SETTINGS: dict[str, Any] = {
    "generation_concurrency": 25,
    "generation_timeout_s": 4.0,
    "stage_timeout_s": 3.0,
    "retry_base_s": 0.2,
    "retry_cap_s": 1.0,
    "stall_threshold_s": 9.0,
}


class Teamfit:
    """The pipeline; made by `running`."""

    name = "teamfit"

    def __init__(self, grounds: Grounds, stack: Stack, books: Database) -> None:
        self.grounds = grounds
        self._books = books
        self._stack = stack
        self._turns = count()

    @classmethod
    @asynccontextmanager
    async def running(cls, grounds: Grounds, *, in_one: bool = False) -> "AsyncIterator[Teamfit]":
        """Start the fleet and stop it in the end.

        Args:
            grounds: its servers.
            in_one: whether all stages share a process, of which there are two. No part can be told apart then.
        """
        settings = Settings(
            _env_file=None,
            broker_url=grounds.broker_url(lease=f"{LEASE_S:g}s"),
            database_url=grounds.database_url,
            **SETTINGS,
        )
        kinds = (API, ALL) if in_one else _KINDS
        parts = [*kinds, *(f"{kind}-2" for kind in kinds)]
        variables = grounds.clocks.environment if grounds.clocks else lambda _part: {}
        stack = Stack(settings, llm_latency_s=LLM_LATENCY_S, parts=parts, variables=variables)
        async with _starting:
            await asyncio.to_thread(stack.__enter__)
        books = Database(grounds.postgres.url, size=4)  # past the proxy, which may be part of a fault
        try:
            yield cls(grounds, stack, books)
        finally:
            await books.close()
            await asyncio.to_thread(stack.close)

    async def open_account(self, organization_id: str) -> None:
        """Add an organization with quota enough."""
        async with self._books.connection() as connection:
            await _queries.open_account(connection, organization_id=organization_id, team_id=_team(organization_id))

    async def submit(self, load: Load, number: int, *, durable_only: bool = False) -> None:
        """Send jobs over HTTP, with the client, and by XADD, a third each."""
        third = number if durable_only else number // 3
        ways = [self._post(load) for _ in range(third)]
        if not durable_only:
            ways += [self._with_client(load, third), self._xadd(load, number - 2 * third)]
        await asyncio.gather(*ways)

    async def anchored(self, load: Load) -> bool:
        """Whether every job accepted so far is known to Postgres."""
        async with self._books.connection() as connection:
            return bool(await _queries.anchored(connection, job_ids=list(load.accepted)) == len(load.accepted))

    async def statuses(self, load: Load) -> Mapping[UUID, str]:
        """Return the statuses of the row's jobs, by the read model."""
        async with self._books.connection() as connection:
            rows = _queries.statuses(connection, organization_id=load.organization_id)
            return {row["job_id"]: row["status"] async for row in rows}

    async def books(self, load: Load) -> Books:
        """Read the ledger, the attempts and the activities."""
        async with self._books.connection() as connection:
            row = await _queries.books(connection, organization_id=load.organization_id)
            rows = _queries.failures(connection, organization_id=load.organization_id)
            failures = {one["code"]: one["jobs"] async for one in rows}
        return Books(
            duplicate_effects=row["duplicate_effects"],
            double_charges=max(0, row["charged"] - row["completed"]),
            completed=row["completed"],
            known=row["known"],
            failures=failures,
        )

    async def llm(self, **order: object) -> None:
        """Tell the LLM how to behave."""
        await self.grounds.order_llm(self._control_url, **order)

    async def llm_calls(self) -> int:
        """Return how many calls the LLM has received."""
        return await self.grounds.llm_calls(self._control_url)

    def parts(self, kind: str) -> Sequence[str]:
        """Return the two processes of a kind."""
        return kind, f"{kind}-2"

    def pid(self, part: str) -> int:
        """Return a part's process ID."""
        return self._stack.pids()[part]

    def kill(self, part: str) -> None:
        """`kill -9` a part."""
        self._stack.kill(part)

    def start(self, part: str) -> None:
        """Start a part and wait until it is ready."""
        self._stack.start(part)

    async def inconsistencies(self, *, deadline_s: float) -> Sequence[str]:
        """Do as `teamfit verify --settled`; facts that are still on their way are waited for."""
        end = asyncio.get_running_loop().time() + deadline_s
        while True:
            async with self._books.connection() as connection:
                try:
                    report = await verify(connection, settled=True, llm_calls=await self.llm_calls())
                except CheckTimedOut as error:
                    return [str(error)]
            if report.ok:
                return self._ended()
            if asyncio.get_running_loop().time() > end:
                async with self._books.connection() as connection, self.grounds.broker_client() as broker:
                    still = await unmoved(connection, broker)
                return [*self._ended(), *report.explain().splitlines(), *still]
            await asyncio.sleep(_POLL_S)

    def _ended(self) -> list[str]:
        """Name what ended by itself: a worker outlives every fault but a kill."""
        try:
            self._stack.check()
        except LocalServerError as error:
            return [str(error)]
        return []

    async def _post(self, load: Load) -> None:
        api = self.parts(API)[next(self._turns) % 2]
        organization_id = load.organization_id
        request = {"organization_id": organization_id, "team_id": _team(organization_id), "requirements": _WISH}
        headers = {"Authorization": f"Bearer {self._stack.token(organization_id)}"}
        url = f"{self._stack.url_of(api)}/api/activities/generate-custom"
        try:
            async with self.grounds.http.post(url, headers=headers, json=request) as answer:
                if answer.status == 202:
                    _accept(load, UUID((await answer.json())["job_id"]))
                    return
        except (aiohttp.ClientError, OSError):
            pass  # its caller knows that it was not accepted
        load.refused += 1

    async def _with_client(self, load: Load, number: int) -> None:
        organization_id = load.organization_id
        requests = [
            Request(organization_id=organization_id, team_id=_team(organization_id), requirements=_WISH)
            for _ in range(number)
        ]
        try:
            async with JobRequests.connect(self.grounds.broker_url()) as client:
                _accept(load, *await client.submit_many(requests))
        except (DependencyDown, ValidationError):
            load.refused += number

    async def _xadd(self, load: Load, number: int) -> None:
        async with self.grounds.broker_client() as redis:
            for _ in range(number):
                job_id = uuid4()
                event = hand_written(str(job_id), load.organization_id, _team(load.organization_id))
                try:
                    await redis.execute_command("XADD", "job-requests", "*", "key", str(job_id), "event", event)
                except (RedisError, OSError):
                    load.refused += 1
                else:
                    _accept(load, job_id)

    @property
    def _control_url(self) -> str:
        return f"{self._stack.settings.openai_base_url}".replace("/v1", "/control")


def _team(organization_id: str) -> str:
    return f"{organization_id}-team"


def _accept(load: Load, *job_ids: UUID) -> None:
    now = datetime.now(UTC)
    for job_id in job_ids:
        load.accepted[job_id] = now
