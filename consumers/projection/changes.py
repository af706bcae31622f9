"""Who waits for a job hears that something about it may have changed.

The projection tells within its transaction, by `NOTIFY`. That wakes those whose job it names, without a look at
Postgres: they read for themselves. `LISTEN` needs a connection of its own, which a pooler in transaction mode does not
give, and which breaks now and then. So one query also looks at all jobs that are waited for, seldom while the
projection is heard and often while not. Whoever subscribes, then reads, then waits, misses nothing.
Source: https://www.postgresql.org/docs/current/sql-notify.html
"""

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import aiosql
import asyncpg
import structlog

from infra.errors import DependencyDown
from infra.postgres import Database, behind_pooler

_queries = aiosql.from_path(Path(__file__).with_name("queries.sql"), "asyncpg")

log = structlog.get_logger(__name__)

CHANNEL: Final = "teamfit_jobs"
GOES_ON: Final = "+"
"""Stands behind the ID of a job that has not ended: who waits for its end need not wake."""
# A payload is shorter than 8,000 bytes, and a job ID with its mark and comma takes 38.
JOBS_IN_A_PAYLOAD: Final = 200
_AGAIN_S = 5.0


class Listener:
    """Calls `heard` with job IDs as soon as a transaction that changed them has committed.

    Those of jobs that have not ended have `GOES_ON` behind them.

    Args:
        database: whose server is listened to, on a connection apart from its pool.
        heard: called with what changed; with nothing when changes may have been missed.

    Attributes:
        is_up: whether changes are heard now.
    """

    def __init__(self, database: Database, heard: Callable[[Collection[str]], None]) -> None:
        self._database = database
        self._heard = heard
        self.is_up = False

    async def run(self) -> None:
        """Listen until cancelled; connect again when the connection breaks. Ends behind a pooler."""
        while True:
            try:
                connection = await self._database.connect_apart()
                try:
                    if await behind_pooler(connection):
                        log.info("listener.pooler_found", consequence="changes are looked for, and not heard of")
                        return
                    await self._listen(connection)
                finally:
                    self.is_up = False
                    connection.terminate()
            except (DependencyDown, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.info("listener.disconnected", why=f"{type(error).__name__}: {error}")
            await asyncio.sleep(_AGAIN_S)

    async def _listen(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        broken = asyncio.Event()
        connection.add_termination_listener(lambda _connection: broken.set())
        await connection.add_listener(CHANNEL, lambda _connection, _pid, _channel, payload: self._tell(payload))
        self.is_up = True
        # What was told before now was not heard.
        self._heard(())
        await broken.wait()

    def _tell(self, payload: object) -> None:
        self._heard(str(payload).split(","))


# While nothing is heard: a person does not notice a quarter of a second, nor the database four small queries a second.
_OFTEN_S = 0.25
# While the projection is heard. What changes without it, such as a failed event, is seen so late.
_SELDOM_S = 2.0
# How long it listens after the last has gone: a connection for each who comes would cost more than its wait.
_LINGER_S = 60.0


@dataclass(slots=True)
class _Waiter:
    """One who waits; `mark` is what the last look showed it, None before the first."""

    only_end: bool
    mark: tuple[object, ...] | None = None


class Changes:
    """The jobs that somebody waits for."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # By job, as it is named in what is heard, who waits for it.
        self._waiting: dict[str, dict[asyncio.Event, _Waiter]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._look_now = asyncio.Event()
        self._is_over = False
        self._listener = Listener(database, self._heard)

    @property
    def is_over(self) -> bool:
        """Return whether the process ends, so that no one is to wait any longer."""
        return self._is_over

    def end(self) -> None:
        """Wake all who wait, for a last look."""
        self._is_over = True
        self._look_now.set()
        for waiting in self._waiting.values():
            for changed in waiting:
                changed.set()

    @contextmanager
    def of(self, job_id: UUID, *, only_end: bool = False) -> Iterator[asyncio.Event]:
        """Give an event that is set when the job may have changed, or is unreadable. Its waiter clears it.

        It is set at first, for whoever has read the job before.

        Args:
            job_id: which job.
            only_end: leave out changes after which it surely goes on.
        """
        changed, name = asyncio.Event(), str(job_id)
        changed.set()
        self._waiting.setdefault(name, {})[changed] = _Waiter(only_end)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            yield changed
        finally:
            del self._waiting[name][changed]
            if not self._waiting[name]:
                del self._waiting[name]

    def _heard(self, told: Collection[str]) -> None:
        if not told:
            self._look_now.set()
        for job in told:
            goes_on = job.endswith(GOES_ON)
            for changed, waiter in self._waiting.get(job.removesuffix(GOES_ON), {}).items():
                if not (goes_on and waiter.only_end):
                    changed.set()

    async def _look(self) -> None:
        while True:
            listening = asyncio.create_task(self._listener.run())
            try:
                await self._look_while_some_wait()
            finally:
                listening.cancel()
                await asyncio.wait([listening])
            # Somebody may have come while the listener ended.
            if not self._waiting:
                return

    async def _look_while_some_wait(self) -> None:
        now = asyncio.get_running_loop().time
        until = now() + _LINGER_S
        while self._waiting or (now() < until and not self._is_over):
            self._look_now.clear()
            if self._waiting:
                until = now() + _LINGER_S
                await self._tell(list(self._waiting))
            with suppress(TimeoutError):
                async with asyncio.timeout(_SELDOM_S if self._listener.is_up else _OFTEN_S):
                    await self._look_now.wait()

    async def _tell(self, job_ids: Collection[str]) -> None:
        """Look at these jobs, and tell who has not heard how they are."""
        try:
            marks = await self._marks(list(job_ids))
        except Exception as error:  # noqa: BLE001 - else all who wait would hear of nothing any more
            log.warning("changes.not_read", error=type(error).__name__)
            marks = None  # they read for themselves, and tell their callers
        for job_id in job_ids:
            is_live, mark = (False, None) if marks is None else marks.get(job_id, (False, ()))
            for changed, waiter in self._waiting.get(job_id, {}).items():
                if mark is None or (waiter.mark != mark and not (waiter.only_end and is_live)):
                    changed.set()
                waiter.mark = mark

    async def _marks(self, job_ids: list[str]) -> dict[str, tuple[bool, tuple[object, ...]]]:
        async with self._database.connection() as connection:
            rows = _queries.marks(connection, job_ids=job_ids)
            return {str(row["job_id"]): (row["is_live"], tuple(row)) async for row in rows}
