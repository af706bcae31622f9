"""A fleet of slots works by a clock of its own. Its calls take no time.

The order is the database's (`dispatch`, as the workers call it); only the seconds that a run takes are made up. So an
hour of a fleet is measured in a minute, and gives the same numbers each time.
"""

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import aiosql

from infra.postgres import Database

_queries = aiosql.from_path(Path(__file__).with_name("fairness.sql"), "asyncpg")


class Run(NamedTuple):
    """A run that was released."""

    job_id: UUID
    run: int
    organization: str


class Fleet:
    """Slots that work on what `dispatch` releases.

    Args:
        database: with nothing else in it.
        slots: how many runs are worked on at once; the window is an eighth larger, as it is for workers.
        seconds: what a run of each organization takes; one that is not named, 1 s.
    """

    def __init__(self, database: Database, slots: int, seconds: Mapping[str, float] | None = None) -> None:
        self._database = database
        self._slots = slots
        self._window = slots + max(2, slots // 8)
        self._seconds = seconds or {}
        self._stand: deque[Run] = deque()
        self._running: list[tuple[float, int, float, Run]] = []
        self._begun = 0
        self.now = 0.0
        self.starts: list[tuple[float, Run]] = []
        self.ends: list[tuple[float, float, Run]] = []

    async def forget(self, weights: Mapping[str, float]) -> None:
        """Begin with an empty line and these organizations."""
        async with self._database.transaction() as connection:
            await _queries.forget(connection)
            await _queries.reset_clock(connection)
            await _queries.add_organizations(connection, names=list(weights), weights=list(weights.values()))

    async def set_weight(self, name: str, weight: float) -> None:
        """Give an organization another weight."""
        async with self._database.connection() as connection:
            await _queries.set_weight(connection, name=name, weight=weight)

    async def enter(self, names: Sequence[str], jobs: int, *, run: int = 1) -> None:
        """Have as many runs of each wait, all of which a dispatcher has seen."""
        async with self._database.connection() as connection:
            await _queries.enter(connection, names=list(names), jobs=jobs, run=run)
            while await _queries.arrived(connection):
                _ = [row async for row in _queries.release(connection, room=0)]
            await connection.execute("ANALYZE dispatch_runs, dispatch_organizations, generation_attempts, job_outcomes")

    async def release(self, window: int) -> list[Run]:
        """Release into the window what is next."""
        async with self._database.connection() as connection:
            return [Run(**row) async for row in _queries.release(connection, room=window)]

    async def end(self, runs: Sequence[Run]) -> None:
        """End runs, each after what its organization's take."""
        async with self._database.connection() as connection:
            await _queries.end_runs(
                connection,
                job_ids=[one.job_id for one in runs],
                runs=[one.run for one in runs],
                seconds=[self._takes(one) for one in runs],
            )

    async def begin(self, *, staggered: bool = False) -> None:
        """Fill the window and the slots.

        Args:
            staggered: the first runs end one after the other, as those of a fleet that has worked for a while do.
        """
        self._stand += await self.release(self._window)
        while self._stand and len(self._running) < self._slots:
            part = (len(self._running) + 1) / self._slots if staggered else 1.0
            self._start(part)

    async def work(self, until: Callable[["Fleet"], bool]) -> None:
        """Work until this is so, or nothing is left."""
        while self._running and not until(self):
            self.now = self._running[0][0]
            over: list[Run] = []
            while self._running and self._running[0][0] <= self.now + 1e-9:
                _, _, began, run = heapq.heappop(self._running)
                self.ends.append((began, self.now, run))
                over.append(run)
            while self._stand and len(self._running) < self._slots:
                self._start()
            await self.end(over)
            self._stand += await self.release(self._window)
            while self._stand and len(self._running) < self._slots:
                self._start()

    def _start(self, part: float = 1.0) -> None:
        run = self._stand.popleft()
        self._begun += 1
        self.starts.append((self.now, run))
        heapq.heappush(self._running, (self.now + part * self._takes(run), self._begun, self.now, run))

    def _takes(self, run: Run) -> float:
        return self._seconds.get(run.organization, 1.0)
