"""Who waits for a job hears that something about it may have changed.

However many wait, one query looks at their jobs: at those that the projection tells of and those that somebody has just
come for, and by itself at all of them now and then, since a `NOTIFY` is not always heard. The first look after somebody
has come tells them unless it shows what they do not wait for, and what is told during a look causes another: whoever
subscribes, then reads, then waits, misses nothing.
"""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
# Jobs that are told of within a moment of a look share the next one.
_MOMENT_S = 0.005


@dataclass(slots=True)
class _Waiter:
    """One who waits; `mark` is what it knows of the job, None before the first look."""

    only_end: bool
    mark: tuple[object, ...] | None = None


class Changes:
    """The jobs that somebody waits for."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # By job, as it is named in what is heard, who waits for it.
        self._waiting: dict[str, dict[asyncio.Event, _Waiter]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._is_over = False
        # What the next look is at; None: at all.
        self._asked: set[str] | None = set()
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
    def of(self, job_id: UUID, *, only_end: bool = False) -> Iterator[asyncio.Event]:
        """Give an event that is set when the job may have changed, or is unreadable. Its waiter clears it.

        Args:
            job_id: which job.
            only_end: leave out changes after which it surely goes on.
        """
        changed, name = asyncio.Event(), str(job_id)
        self._waiting.setdefault(name, {})[changed] = _Waiter(only_end)
        self._ask({name})
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            yield changed
        finally:
            del self._waiting[name][changed]
            if not self._waiting[name]:
                del self._waiting[name]

    def _heard(self, job_ids: Collection[str]) -> None:
        if not job_ids:
            self._asked = None
            self._news.set()
        elif told := {one for one in job_ids if one in self._waiting}:
            self._ask(told)

    def _ask(self, job_ids: set[str]) -> None:
        if self._asked is not None:
            self._asked |= job_ids
        self._news.set()

    async def _look(self) -> None:
        listening = asyncio.create_task(self._listener.run())
        try:
            await self._look_while_some_wait()
        finally:
            listening.cancel()
            await asyncio.wait([listening])

    async def _look_while_some_wait(self) -> None:
        now = asyncio.get_running_loop().time
        all_at = now()
        while self._waiting:
            asked, self._asked = self._asked, set()
            self._news.clear()
            if asked is None or now() >= all_at:
                asked = set(self._waiting)
                all_at = now() + (_SELDOM_S if self._listener.is_up else _OFTEN_S)
            next_at = now() + _MOMENT_S
            await self._tell(asked & self._waiting.keys())
            with suppress(TimeoutError):
                async with asyncio.timeout_at(all_at):
                    await self._news.wait()
                    await asyncio.sleep(next_at - now())

    async def _tell(self, job_ids: Collection[str]) -> None:
        """Look at these jobs, and tell who has not heard how they are."""
        if not job_ids:
            return
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
