"""Who waits for a job hears that something about it may have changed.

However many wait, one query in each interval looks at all their jobs, and no connection is held in between. The first
look after somebody has come always tells them: whoever subscribes, then reads, then waits, misses nothing.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import aiosql
import structlog

from infra.postgres import Database

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("queries.sql"), "asyncpg")

# A person does not notice a quarter of a second, and the database does not notice four small queries a second.
_INTERVAL_S = 0.25


class Changes:
    """The jobs that somebody waits for."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # By job, who waits for it, each with the mark that it knows of; None: of no mark yet.
        self._waiting: dict[UUID, dict[asyncio.Event, tuple[object, ...] | None]] = {}
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def of(self, job_id: UUID) -> Iterator[asyncio.Event]:
        """Give an event that is set when the job may have changed, or cannot be read; whoever waits clears it."""
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

    async def _look(self) -> None:
        while self._waiting:
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
            await asyncio.sleep(_INTERVAL_S)

    async def _marks(self, job_ids: list[UUID]) -> dict[UUID, tuple[object, ...]]:
        async with self._database.transaction() as connection:
            return {row["job_id"]: tuple(row) async for row in _queries.marks(connection, job_ids=job_ids)}
