"""Facts of runs that ended, and of budgets, become deliveries to their organizations' endpoints.

Deliveries are recorded in one transaction; the entry is acknowledged after it. If the process dies before the commit,
the entry is delivered again; after it, the same rows are found and nothing changes. Facts that the broker lost are
found in the archive, or by the mark of the schedule, a few minutes later.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import aiosql
import orjson
import structlog

from consumers.webhooks import deliveries, endpoints
from consumers.webhooks.messages import BUDGET, Message, endpoint_of, message_of
from infra.clock import Clock
from infra.errors import ForgedEvent, InvalidEvent
from infra.postgres import Connection, Database
from infra.settings import Settings
from streams.delivery.batching import Batcher
from streams.delivery.deliveries import Delivery, Record
from streams.jobs.events import TERMINAL, JobEvent, TerminalFact, parse_event
from streams.jobs.organization_facts import BudgetReached, OrganizationFact, Reached, budget_reached
from streams.jobs.ownership import Ownership

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("handlers.sql"), "asyncpg")

# What the schedule has noted comes by the broker within seconds; what has not come since then is lost.
_SETTLED_AFTER: Final = timedelta(minutes=2)
_LOOKED_BACK: Final = timedelta(hours=1)


async def check_mark(connection: Connection, fact: BudgetReached) -> None:
    """Pass if a fact is true. Whoever may write to the topic could have made it up.

    Raises:
        ForgedEvent: no such mark was reached, or the ID is not the one that follows from what it says.
    """
    told = fact.data
    if fact.id != budget_reached(told, at=fact.time).id:
        raise ForgedEvent(f"id: {fact.id!r} is not the one that a fact of this kind has; only the stages write facts")
    if not await _queries.is_true(
        connection,
        organization_id=told.organization_id,
        period=told.period,
        percent=told.percent,
        budget=told.budget,
    ):
        raise ForgedEvent(f"data: {told.organization_id} has not reached {told.percent} % of a budget of {told.budget}")


async def reached_lately(connection: Connection, *, now: datetime) -> list[BudgetReached]:
    """Return the facts of the last hour that an endpoint wants to be told of."""
    rows = _queries.lately(connection, since=now - _LOOKED_BACK, before=now - _SETTLED_AFTER, kind=BUDGET)
    found = []
    async for row in rows:
        values = dict(row)
        at = values.pop("reached_at")
        found.append(budget_reached(Reached(**values), at=at))
    return found


class Facts:
    """Takes facts, and records who is told of them.

    Args:
        database: where deliveries stand.
        clock: tells since when they are due.
        settings: how many are recorded at once.
        recorded: called when there are new deliveries.
    """

    def __init__(
        self, database: Database, clock: Clock, settings: Settings, *, recorded: Callable[[], None] = lambda: None
    ) -> None:
        self._tell = recorded
        self._database = database
        self._clock = clock
        timeout_s = settings.stage_timeout_s
        self._ownership = Ownership(database, timeout=timedelta(seconds=timeout_s))
        self._listening: Batcher[str, bool] = Batcher(
            self._are_listening, max_size=settings.batch_size, timeout_s=timeout_s, looks_up=True
        )
        self._recorded: Batcher[Message, None] = Batcher(
            self._record, max_size=settings.batch_size, timeout_s=timeout_s
        )

    async def handle(self, fact: JobEvent | OrganizationFact, delivery: Delivery) -> Sequence[Record]:
        """Record the deliveries of a fact that customers are told of; nothing follows.

        Only ours may name the one endpoint that a fact is for: whoever else writes an entry has all of them told.

        Raises:
            ForgedEvent: it must not be believed.
            DependencyDown: Postgres is away.
        """
        # Most facts end nothing, and most organizations have no endpoint: they cost one look for a whole batch.
        if isinstance(fact, TerminalFact | BudgetReached) and await self._listening.submit(fact.data.organization_id):
            await self._check(fact)
            endpoint_id = endpoint_of(delivery.value) if delivery.is_ours else None
            await self._recorded.submit(message_of(fact, endpoint_id=endpoint_id))
        return ()

    async def _check(self, fact: TerminalFact | BudgetReached) -> None:
        """Pass if a fact is true. Raises ForgedEvent."""
        if not isinstance(fact, BudgetReached):
            await self._ownership.check(fact)
            return
        async with self._database.transaction() as connection:
            await check_mark(connection, fact)

    async def catch_up(self) -> int:
        """Record archived facts that the broker has lost; return how many deliveries are new.

        Raises:
            DependencyDown: Postgres is away.
        """
        async with self._database.transaction(for_values=True) as connection:
            now = self._clock.now()
            facts: list[TerminalFact | BudgetReached] = [
                fact for event in await deliveries.forgotten(connection, now=now) if (fact := _archived(event))
            ]
            facts += await reached_lately(connection, now=now)
            found = await deliveries.record(connection, [message_of(fact) for fact in facts], now=now)
        if found:
            log.warning("webhooks.recovered", deliveries=found)
        return found

    async def _are_listening(self, organization_ids: Sequence[str]) -> Sequence[bool]:
        async with self._database.connection() as connection:
            found = await endpoints.listening(connection, organization_ids)
        return [one in found for one in organization_ids]

    async def _record(self, messages: Sequence[Message]) -> Sequence[None]:
        async with self._database.transaction() as connection:
            await deliveries.record(connection, messages, now=self._clock.now())
        self._tell()
        return [None] * len(messages)


def _archived(event: object) -> TerminalFact | None:
    try:
        fact = parse_event(orjson.dumps(event))
    except InvalidEvent as error:
        # Of an older version with other bounds: it ends no run that anybody waits for now.
        log.warning("fact.not_read", why=str(error))
        return None
    return fact if isinstance(fact, TERMINAL) else None
