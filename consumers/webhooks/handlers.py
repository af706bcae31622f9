"""Facts that end runs become deliveries to the endpoints of their organizations.

Deliveries are recorded in one transaction; the entry is acknowledged after it. If the process dies before the commit,
the entry is delivered again; after it, the same rows are found and nothing changes. Facts that the broker lost are
found in the archive, a few minutes later.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import orjson
import structlog

from consumers.webhooks import deliveries, endpoints
from consumers.webhooks.messages import Message, endpoint_of, message_of
from infra.clock import Clock
from infra.errors import InvalidEvent
from infra.postgres import Database
from infra.settings import Settings
from streams.delivery.batching import Batcher
from streams.delivery.deliveries import Delivery, Record
from streams.jobs.events import TERMINAL, JobEvent, TerminalFact, parse_event
from streams.jobs.ownership import Ownership
from streams.jobs.topics import read_event

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Fact:
    """An event, and the one endpoint that it is for if it is replayed."""

    event: JobEvent
    endpoint_id: UUID | None = None


def read_fact(delivery: Delivery) -> Fact:
    """Read a delivery of `job-events`. Raises InvalidEvent.

    Only ours may name an endpoint: whoever else writes an entry has its organization's told, all or none.
    """
    return Fact(read_event(delivery), endpoint_of(delivery.value) if delivery.is_ours else None)


class Facts:
    """Takes facts about jobs, and records who is told of those that end a run.

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
            self._are_listening, max_size=settings.batch_size, timeout_s=timeout_s
        )
        self._recorded: Batcher[Message, None] = Batcher(
            self._record, max_size=settings.batch_size, timeout_s=timeout_s
        )

    async def handle(self, fact: Fact, _delivery: Delivery) -> Sequence[Record]:
        """Record the deliveries of a fact that ends a run; nothing follows.

        Raises:
            ForgedEvent: it must not be believed.
            DependencyDown: Postgres is away.
        """
        event = fact.event
        # Most facts end nothing, and most organizations have no endpoint: they cost one look for a whole batch.
        if isinstance(event, TERMINAL) and await self._listening.submit(event.data.organization_id):
            await self._ownership.check(event)
            await self._recorded.submit(message_of(event, endpoint_id=fact.endpoint_id))
        return ()

    async def catch_up(self) -> int:
        """Record archived facts that the broker has lost; return how many deliveries are new.

        Raises:
            DependencyDown: Postgres is away.
        """
        async with self._database.transaction() as connection:
            now = self._clock.now()
            facts = [fact for event in await deliveries.forgotten(connection, now=now) if (fact := _archived(event))]
            found = await deliveries.record(connection, [message_of(fact) for fact in facts], now=now)
        if found:
            log.warning("webhooks.recovered", deliveries=found)
        return found

    async def _are_listening(self, organization_ids: Sequence[str]) -> Sequence[bool]:
        async with self._database.transaction() as connection:
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
