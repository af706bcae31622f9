"""Who waits for a job hears that something about it may have changed.

What the projection tells wakes those whose job it names, without a look at Postgres: they read for themselves. Since a
`NOTIFY` is not always heard, one query also looks at all jobs that are waited for, seldom while the projection is heard
and often while not. Whoever subscribes, then reads, then waits, misses nothing.
"""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import aiosql
import structlog

from consumers.projection.listener import GOES_ON, Listener
from infra.postgres import Database

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("queries.sql"), "asyncpg")

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
