"""This module gives each event to the part of the stage that handles it."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TypeAlias

from consumers.quota.admission import Admission, Admissions, told_now
from consumers.quota.cancellation import Cancellations
from consumers.quota.counters import CounterBatches
from consumers.quota.delays import Delays
from consumers.quota.settlement import Settlements
from infra.clock import Clock
from infra.errors import InvalidEvent
from infra.postgres import Database
from infra.settings import Settings
from streams.delivery.batching import Batcher
from streams.delivery.deliveries import Delivery, Record
from streams.jobs.events import (
    TERMINAL,
    JobCancelRequested,
    JobEvent,
    JobRequested,
    TerminalFact,
)
from streams.jobs.ownership import Ownership, early_cancellation

Request: TypeAlias = JobRequested | JobCancelRequested


class Requests:
    """Takes what comes on `job-requests`."""

    def __init__(self, database: Database, clock: Clock, settings: Settings) -> None:
        size, timeout_s = settings.batch_size, settings.stage_timeout_s
        self._admissions = Admissions(database, clock, trust_threshold=settings.trust_threshold)
        self._cancellations = Cancellations(database, clock)
        self._delays = Delays(database, clock)
        self._ownership = Ownership(database, timeout=timedelta(seconds=settings.stage_timeout_s))
        self._admitted: CounterBatches[JobRequested, Admission] = CounterBatches(
            self._admissions.admit, self._admissions.admit_free, owner=_owner, max_size=size, timeout_s=timeout_s
        )
        self._delayed: Batcher[JobRequested, None] = Batcher(self._delays.keep, max_size=size, timeout_s=timeout_s)

    async def handle(self, event: Request, _delivery: Delivery) -> Sequence[Record]:
        """Decide a request or a cancellation and return the facts to be told now.

        What is admitted waits for its turn.

        Raises:
            ForgedEvent: it must not be believed.
            Postponed: the organization's counter is kept locked by another transaction.
            DependencyDown: Postgres is away.
        """
        if isinstance(event, JobCancelRequested):
            return await self._cancellations.cancel(event) if await self._ownership.cancels_now(event) else ()
        evidence = await self._ownership.check(event)
        if (before := early_cancellation(event, evidence)) is not None:
            return await self._cancellations.cancel(before)
        if self._delays.delayed(event):
            await self._delayed.submit(event)
            return ()
        admission = await self._admitted.submit(event)
        if isinstance(admission, InvalidEvent):
            raise admission
        return told_now(admission)

    async def give_up(self, event: Request, _delivery: Delivery, error: Exception) -> Sequence[Record]:
        """Fail the run of a request that cannot be decided; return the fact.

        A cancellation that cannot be decided leaves the job as it is; the dead letter says so. What failed may be the
        check of ownership itself, so it is made once more.
        """
        if isinstance(event, JobCancelRequested) or not await self._ownership.allows(event):
            return ()
        return await self._admissions.give_up(event, error)


class Facts:
    """Takes what comes on `job-events`."""

    def __init__(self, database: Database, clock: Clock, settings: Settings) -> None:
        settlements = Settlements(database, clock)
        self._ownership = Ownership(database, timeout=timedelta(seconds=settings.stage_timeout_s))
        self._settled: CounterBatches[TerminalFact, None] = CounterBatches(
            settlements.settle,
            settlements.settle_free,
            owner=_owner,
            max_size=settings.batch_size,
            timeout_s=settings.stage_timeout_s,
        )

    async def handle(self, event: JobEvent, _delivery: Delivery) -> Sequence[Record]:
        """Settle the run that an event ends. Nothing follows from it, nor from any other event.

        Raises:
            ForgedEvent: it must not be believed.
            Postponed: the organization's counter is kept locked by another transaction.
            DependencyDown: Postgres is away.
        """
        if isinstance(event, TERMINAL):
            await self._ownership.check(event)
            await self._settled.submit(event)
        return ()


def _owner(event: JobRequested | TerminalFact) -> str:
    return event.data.organization_id
