"""Jobs are counted by time, so that charts need not read the jobs.

The read model says when each job began and ended. The archive says which times have changed since the last look: the
times of the jobs of its new events. Each such time is counted again as a whole, in one transaction with the note of how
far the archive was read, so stopping anywhere repeats a part and counts nothing twice. Events of a transaction that
commits late have lower numbers than the last one, so each look begins a little before it; what even that misses, and
what a rebuild of the read model has repaired, the count of all of it finds, once a day.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import aiosql
import structlog

from infra.clock import Clock, floor
from infra.postgres import Connection, Database

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("counts.sql"), "asyncpg")

KEPT: Final = timedelta(days=100)
"""How long counts are kept: charts show ninety days."""
_FINE: Final = timedelta(minutes=5)
_COARSE: Final = timedelta(hours=1)
_HALF_DAY: Final = timedelta(hours=12)
_FINE_FOR: Final = timedelta(days=2)
# A page of the archive, and how much of it is looked at again for what has committed late.
_PAGE: Final = 20_000
_OVERLAP: Final = 5_000
# An archive that has not grown for so many looks has nothing that would commit late.
_QUIET_LOOKS: Final = 4
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# From when until when, and in pieces of which width.
Span = tuple[datetime, datetime, timedelta]


@dataclass(slots=True)
class Counts:
    """Keeps `job_counts` up to date. Two that do so at once take turns."""

    database: Database
    clock: Clock
    _last: int = field(default=-1, init=False)
    _quiet: int = field(default=0, init=False)

    async def count(self) -> int:
        """Count the times again in which something has changed; return how many. The first time, count everything.

        Raises:
            DependencyDown: Postgres is away.
        """
        counted = 0
        while True:
            async with self.database.transaction(for_values=True) as connection:
                if not await _queries.take_turn(connection):
                    return counted
                progress = await _queries.progress(connection)
                if progress["counted_to"] is None:
                    break
                if self._is_quiet(progress["archived_to"]):
                    return counted
                # Retention may have taken the last events away, and a restored backup has fewer.
                after = max(0, min(progress["counted_to"], progress["archived_to"]) - _OVERLAP)
                changed = await _queries.changed(connection, after=after, limit=_PAGE + _OVERLAP)
                for span in self._spans(changed["times"]):
                    await _count(connection, span)
                    counted += 1
                await _queries.note_progress(connection, counted_to=changed["last"] or 0)
            if changed["events"] < _PAGE + _OVERLAP:
                return counted
        return await self.count_again()

    async def count_again(self) -> int:
        """Count all that is kept again, half a day in a transaction; return how many.

        Times of which whole jobs were deleted stay as they were counted.

        Raises:
            DependencyDown: Postgres is away. The next call begins anew.
        """
        now = self.clock.now()
        horizon = floor(now - KEPT, _COARSE)
        async with self.database.transaction(for_values=True) as connection:
            archived_to = (await _queries.progress(connection))["archived_to"]
            known = await _queries.first_time(connection, since=horizon)
            await _queries.forget(connection, since=_EPOCH, until=horizon)
        begin = max(one for one in (known["first"] or now, known["deleted_before"] or horizon, horizon))
        counted = 0
        for span in self._all(floor(begin, _COARSE), now):
            async with self.database.transaction(for_values=True) as connection:
                if await _queries.take_turn(connection):
                    await _count(connection, span)
                    counted += 1
        async with self.database.transaction(for_values=True) as connection:
            await _queries.note_progress(connection, counted_to=archived_to)
        log.info("jobs.counted", spans=counted, since=begin.isoformat())
        return counted

    def _is_quiet(self, archived_to: int) -> bool:
        self._quiet = self._quiet + 1 if archived_to == self._last else 0
        self._last = archived_to
        return self._quiet >= _QUIET_LOOKS

    def _spans(self, times: Iterable[datetime]) -> list[Span]:
        """Return the spans in which these times are counted; those that charts show no more are left out."""
        now = self.clock.now()
        widths = ((at, _FINE if at >= _fine_from(now) else _COARSE) for at in times if at > now - KEPT)
        return sorted({(since := floor(at, width), since + width, width) for at, width in widths})

    def _all(self, begin: datetime, now: datetime) -> Iterable[Span]:
        fine_from = _fine_from(now)
        while begin <= now:
            width = _FINE if begin >= fine_from else _COARSE
            end = begin + _HALF_DAY
            until = end if width == _FINE else min(end, fine_from)
            yield begin, until, width
            begin = until


async def _count(connection: Connection, span: Span) -> None:
    since, until, width = span
    await _queries.forget(connection, since=since, until=until)
    await _queries.count(connection, since=since, until=until, width=width)


def _fine_from(now: datetime) -> datetime:
    return floor(now - _FINE_FOR, _COARSE)
