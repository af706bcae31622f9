"""Admitted runs wait in Postgres, and a window of them is released: fair dispatch.

    (admitted) ──▶ arrived ──▶ waiting ──▶ released ──▶ (ended: the row is gone)
                                  ▲            │ its try failed, and the next one is later
                                  └── parked ◀─┘

Who comes next, and by what rule, stands in docs/fairness.md. The order is kept by one SQL function, `dispatch`, which
alone moves `state` and the organizations' rows. Everybody else only adds rows or marks: quota enters a run in the
transaction of its admission; however a run ends, a trigger on `job_outcomes` marks it; a stage marks a run that
waits for its retry, in the transaction that keeps the retry; the schedule marks it when that is due. So a dispatcher
waits for no other transaction, and as it is one statement, a process that stalls keeps no other waiting.

If a process dies
- before the admission is committed: nothing has happened, and the request is delivered again;
- after it: the schedule's timer releases the run;
- after the release, before it is published: the timer publishes what is not noted as published within 5 s;
- after publishing, before that is noted: it is published twice, and the second entry finds the run under way or ended.

If the broker loses everything, what waits is not touched, and what was released is found by the reconciler, as any run
that stands still: its request goes to quota again, which enters it again, and that publishes it again without another
release. Two dispatchers take turns. A run that is not released is not begun (see generation's `begin`), whatever entry
there is of it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar, cast
from uuid import UUID

import aiosql
import orjson
import structlog

from infra import telemetry
from infra.clock import Clock
from infra.errors import DependencyDown, InvalidEvent
from infra.postgres import Connection, Database
from streams.delivery.deliveries import Delivery, Record
from streams.delivery.interfaces import Publisher
from streams.delivery.scheduled import keep, kept_headers, read_headers
from streams.delivery.seal import Seal, SealedPublisher
from streams.jobs.events import JobAccepted
from streams.jobs.stages import RELEASED_TO, RUN_TOPICS
from streams.jobs.topics import read_event

P = ParamSpec("P")
R = TypeVar("R")

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("dispatch.sql"), "asyncpg")

_LONGEST_CLOSE_S: Final = 5.0
# Where released runs stand, and where each goes on after its retry: nothing is released into what is only worked off.
_ONWARD: Final = {topic: RUN_TOPICS[stage][0] for stage in RELEASED_TO for topic in RUN_TOPICS[stage]}


async def enter(connection: Connection, accepted: Sequence[Record]) -> None:
    """Have admitted runs wait for their turn, in the caller's transaction. A run that is known keeps its place."""
    runs = sorted(((_accepted(one), one) for one in accepted), key=lambda pair: (pair[0].job_id, pair[0].run))
    if runs:
        await _queries.enter(
            connection,
            job_ids=[event.job_id for event, _ in runs],
            runs=[event.run for event, _ in runs],
            organization_ids=[event.data.organization_id for event, _ in runs],
            topics=[one.topic for _, one in runs],
            events=[one.value for _, one in runs],
        )


async def note_paced(connection: Connection, runs: Sequence[tuple[UUID, int, timedelta]]) -> None:
    """Note that released runs wait until the LLM's limits have room.

    With how long they have waited. For whoever asks why they wait; repeating it changes nothing.
    """
    await _queries.note_paced(
        connection,
        job_ids=[job_id for job_id, _, _ in runs],
        runs=[run for _, run, _ in runs],
        waited=[waited for _, _, waited in runs],
    )


async def rejoin(connection: Connection, due: Sequence[Record]) -> list[Record]:
    """Have runs whose retry is due wait for their turn again.

    Returns the records that are to be published as they are.

    In the transaction that takes the records out of the schedule: dying before its commit leaves them there.
    """
    retries = {(event.job_id, event.run): one for one in due if (event := _retried(one)) is not None}
    if not retries:
        return list(due)
    rows = _queries.rejoin(
        connection,
        job_ids=[job_id for job_id, _ in retries],
        runs=[run for _, run in retries],
        topics=[_ONWARD[one.topic] for one in retries.values()],
        events=[one.value for one in retries.values()],
        headers=[orjson.dumps(kept_headers(one.headers)).decode() for one in retries.values()],
    )
    waiting = {id(retries[row["job_id"], row["run"]]) async for row in rows}
    return [one for one in due if id(one) not in waiting]


def _accepted(one: Record) -> JobAccepted:
    return cast("JobAccepted", read_event(Delivery(one.topic, one.key, one.value, one.headers)))


def _retried(one: Record) -> JobAccepted | None:
    if one.topic not in _ONWARD:
        return None
    try:
        return _accepted(one)
    except InvalidEvent:
        return None  # its stage says what is wrong with it


class Dispatcher:
    """Releases runs, and publishes what was released. Any number may work at once.

    Args:
        database: where the runs wait.
        publisher: of the process.
        window: how many runs may be released, and so stand ready or be worked on. Larger: more runs are ahead of a
            customer's new one; smaller: slots stand empty. None: as many as the live workers take, and an eighth more.
        linger: how long a poke waits for others, which share its look at the line. The window's eighth lasts longer.
    """

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        *,
        window: int | None,
        linger: timedelta = timedelta(),
    ) -> None:
        self._database = database
        self._publisher = SealedPublisher(publisher, Seal(database))
        self._window = window
        self._linger = linger
        self._poked = self._is_closed = False
        self._task: asyncio.Task[None] | None = None

    def poke(self) -> None:
        """Release soon what may be released now: something was admitted, or has ended. Never raises or waits.

        What is not looked at any more, once this is closed, another process or the next sweep finds.
        """
        if self._is_closed:
            return
        self._poked = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="dispatch")

    def after(self, handle: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """Return a handler that does the same and pokes when it has ended well."""

        async def handled(*args: P.args, **kwargs: P.kwargs) -> R:
            result = await handle(*args, **kwargs)
            self.poke()
            return result

        return handled

    async def close(self) -> None:
        """Wait for what is being released, and release nothing more.

        It could not be published: the producer stops next.
        """
        self._is_closed = True
        if self._task is not None:
            # The next sweep finds what a database that stalls keeps from being published: others wait for this stop.
            await asyncio.wait([self._task], timeout=_LONGEST_CLOSE_S)

    async def release(self, *, sweep: bool = False) -> int:
        """Release what is next into the window, publish it, and return the number of runs.

        Args:
            sweep: also publish what others released and did not publish, and look for ends and caps that were missed.

        Raises:
            DependencyDown: Postgres or the broker is away. What was released is published by a later sweep.
        """
        async with self._database.connection() as connection:
            row = await _queries.release(connection, room=self._window, sweep=sweep)
        if not row["job_ids"]:
            return 0
        records = [
            Record(topic, str(job_id).encode(), event, read_headers(orjson.loads(headers)))
            for job_id, topic, event, headers in zip(
                row["job_ids"], row["topics"], row["events"], row["headers"], strict=True
            )
        ]
        published = await self._publish(records)
        await self._note(row["job_ids"], row["runs"], row["released_at"], published)
        return sum(published)

    async def recount(self) -> None:
        """Set the counters to what the rows say: should anybody have changed one by hand. Raises DependencyDown."""
        async with self._database.connection() as connection:
            mended = int(await _queries.recount(connection))
        if mended:
            log.error("dispatch.recounted", organizations=mended)

    async def _publish(self, records: Sequence[Record]) -> list[bool]:
        """Publish records, and say of each whether it was; one that cannot be holds up no other."""
        try:
            await self._publisher.publish(records)
        except DependencyDown:
            raise
        except Exception:
            if len(records) > 1:
                half = len(records) // 2
                return [*await self._publish(records[:half]), *await self._publish(records[half:])]
            telemetry.SET_ASIDE.labels("dispatch").inc()
            log.exception("dispatch.not_published", key=records[0].key)
            return [False]
        return [True] * len(records)

    async def _note(
        self, job_ids: Sequence[UUID], runs: Sequence[int], released_at: Sequence[datetime], published: Sequence[bool]
    ) -> None:
        places = [place for place, one in enumerate(published) if one]
        async with self._database.connection() as connection:
            await _queries.published(
                connection,
                job_ids=[job_ids[place] for place in places],
                runs=[runs[place] for place in places],
                released_at=[released_at[place] for place in places],
            )

    async def _work(self) -> None:
        while self._poked:
            await asyncio.sleep(self._linger.total_seconds())
            self._poked = False
            try:
                await self.release()
            except DependencyDown as error:
                # The stages say so too; the schedule's timer goes on when it is back.
                log.warning("dispatch.put_off", dependency=error.dependency, why=str(error))
            except Exception:
                telemetry.SET_ASIDE.labels("dispatch").inc()
                log.exception("dispatch.failed")


class Slots:
    """A generation worker tells how much it takes at once; the window follows.

    It is told every few seconds, else forgotten.
    """

    def __init__(self, database: Database, worker: UUID, slots: Callable[[], int]) -> None:
        self._database = database
        self._worker = worker
        self._slots = slots

    async def tell(self) -> None:
        """Say that the worker is here. Raises DependencyDown."""
        async with self._database.connection() as connection:
            await _queries.is_here(connection, worker=self._worker, slots=self._slots())

    async def withdraw(self) -> None:
        """Say that it is gone; whoever dies without is forgotten within 20 seconds."""
        try:
            async with self._database.connection() as connection:
                await _queries.is_gone(connection, worker=self._worker)
        except DependencyDown as error:
            log.warning("dispatch.not_withdrawn", why=str(error))


class GivenBack:
    """Keeps a stage's retries, whose runs hold no slot until they are due. Implements `RetrySchedule`."""

    def __init__(self, database: Database, clock: Clock, dispatcher: Dispatcher) -> None:
        self._database = database
        self._clock = clock
        self._dispatcher = dispatcher

    async def schedule(self, record: Record, delay: timedelta, *, reason: str) -> None:
        """Keep the record until the delay has passed; repeating the call keeps it once.

        Raises:
            DependencyDown: Postgres is away; whether it was kept is unknown.
        """
        event = _retried(record)
        async with self._database.transaction() as connection:
            now = self._clock.now()
            await keep(connection, record, now=now, due_at=now + delay, reason=reason)
            if event is not None:
                await _queries.give_back(connection, job_id=event.job_id, run=event.run)
        self._dispatcher.poke()
