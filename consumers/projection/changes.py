"""Who waits for a job hears that something about it may have changed.

However many wait, one query looks at all their jobs: when the projection tells of one of them, and by itself now and
then, since a `NOTIFY` is not always heard. The first look after somebody has come always tells them, and what is told
during a look causes another: whoever subscribes, then reads, then waits, misses nothing.
"""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

import aiosql
import structlog

from consumers.projection.listener import Listener
from infra.postgres import Database

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("queries.sql"), "asyncpg")

# While nothing is heard: a person does not notice a quarter of a second, nor the database four small queries a second.
_OFTEN_S = 0.25
# While the projection is heard. What changes without it, such as a failed event, is seen so late.
_SELDOM_S = 2.0
# Jobs that are told of within a moment share a look.
_MOMENT_S = 0.005


class Changes:
    """The jobs that somebody waits for."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # By job, who waits for it, each with the mark that it knows of; None: of no mark yet.
        self._waiting: dict[UUID, dict[asyncio.Event, tuple[object, ...] | None]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._is_over = False
        self._listener = Listener(database, self._heard)

    @property
    def is_over(self) -> bool:
        """Return whether the process ends, so that no one is to wait any longer."""
        return self._is_over

    def end(self) -> None:
        """Wake all who wait, for a last look."""
        self._is_over = True
        for waiting in self._waiting.values():
            for changed in waiting:
                changed.set()

    @contextmanager
    def of(self, job_id: UUID) -> Iterator[asyncio.Event]:
        """Give an event that is set when the job may have changed, or is unreadable. Its waiter clears it."""
        changed = asyncio.Event()
        self._waiting.setdefault(job_id, {})[changed] = None
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            yield changed
        finally:
            del self._waiting[job_id][changed]
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    def _heard(self, job_ids: Collection[str]) -> None:
        if not job_ids or any(str(job_id) in job_ids for job_id in self._waiting):
            self._news.set()

    async def _look(self) -> None:
        listening = asyncio.create_task(self._listener.run())
        try:
            await self._look_while_some_wait()
        finally:
            listening.cancel()
            await asyncio.wait([listening])

    async def _look_while_some_wait(self) -> None:
        while self._waiting:
            self._news.clear()
            try:
                marks = await self._marks(list(self._waiting))
            except Exception as error:  # noqa: BLE001 - else all who wait would hear of nothing any more
                log.warning("changes.not_read", error=type(error).__name__)
                marks = None  # they read for themselves, and tell their callers
            for job_id, waiting in self._waiting.items():
                mark = None if marks is None else marks.get(job_id, ())
                for changed, known in waiting.items():
                    if mark is None or known != mark:
                        waiting[changed] = mark
                        changed.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(_SELDOM_S if self._listener.is_up else _OFTEN_S):
                    await self._news.wait()
                    await asyncio.sleep(_MOMENT_S)

    async def _marks(self, job_ids: list[UUID]) -> dict[UUID, tuple[object, ...]]:
        async with self._database.transaction() as connection:
            return {row["job_id"]: tuple(row) async for row in _queries.marks(connection, job_ids=job_ids)}
