"""Rebuilding the read model from the archive while the projection goes on writing both.

1. *Fold*: the archive goes, page by page and without holding any lock or snapshot, into a shadow table that belongs to
   this session alone.
2. *Examine*: in one snapshot, what was archived meanwhile is folded too, and the shadow is compared with the read
   model. What differs now differs indeed: an event and its effect on the row commit together.
3. *Repair*: in one transaction, the rows that differ are locked, what their jobs got since is folded, and the rows are
   written. Readers see all of it at once.
4. *Examine* again, which shows the result.

Rows are repaired in place; the tables are not swapped by name. A rename would need a lock that stops every reader, take
indexes, grants and rows that have no events (those of the Celery days) along by hand, and break the statements that
asyncpg keeps prepared on every connection of the fleet, which name tables by number. In place, only the projection's
writes to the jobs under repair wait. That it archives no event without holding the job's row is what makes this exact.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias
from uuid import UUID

import asyncpg

from consumers.projection.fold import JobState
from consumers.projection.refold import COLUMNS, Folded, Gaps, Session, absorb, find_gaps, fold_archive, queries
from infra.actions import Act, note
from infra.errors import DependencyDown
from infra.postgres import behind_pooler
from streams.jobs.events import TERMINAL_TYPES, JobId

Step: TypeAlias = Literal["fold", "examine", "repair"]
# Told how far a step is: events done, and how many there are.
Progress: TypeAlias = Callable[[Step, int, int], None]

_EXAMPLES = 20
_CHUNK = 2_000
# The projection holds a row for one batch, well under a second; whoever holds one longer hangs.
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '15s'"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The read model compares with the archive like this at one moment.

    Attributes:
        jobs: that the archive tells of.
        rows: of the read model for those jobs.
        archive_fingerprint, row_fingerprint: equal if all rows are what the archive says.
        missing: jobs without a row.
        different: rows that are not what the archive says.
        examples: some of both, each a job ID and the columns.
        kept: rows that hold more than the archive tells, and are left as they are.
        without_events: rows that the archive does not know: those of the Celery days, or gaps.
        unreadable: jobs with an event that cannot be read, and why; they are left as they are.
    """

    jobs: int
    rows: int
    archive_fingerprint: str
    row_fingerprint: str
    missing: int
    different: int
    examples: Sequence[str]
    kept: int
    without_events: int
    unreadable_jobs: int
    unreadable: Sequence[str]
    gaps: Gaps

    @property
    def agrees(self) -> bool:
        """Return whether there is nothing to repair and nothing beyond repair."""
        return not (self.missing or self.different or self.unreadable_jobs or self.gaps.found)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A rebuild found and did this. `after` is None if nothing was to be repaired, or nothing should be."""

    events: int
    before: Comparison
    repaired: int
    after: Comparison | None

    @property
    def agrees(self) -> bool:
        """Return whether the read model is now the fold of the archive, without gaps."""
        return (self.after or self.before).agrees


def _no_progress(_step: Step, _done: int, _total: int) -> None:
    pass


async def rebuild(connection: Session, *, dry_run: bool = False, progress: Progress = _no_progress) -> Rebuilt:
    """Make the read model the fold of the archive. With `dry_run`, only say what would change.

    Needs a session outside of a transaction, without a time limit on its statements (in a large archive, those over all
    of it take minutes), and the right to make temporary tables. It may be stopped at any moment and repeated: until the
    one transaction that repairs has committed, nothing has changed.

    Raises:
        DependencyDown: a pooler stands between, a row stayed locked, or the server broke a deadlock; nothing has
            changed, so run it again.
    """
    if await behind_pooler(connection):
        raise DependencyDown(
            "postgres",
            "a rebuild keeps temporary tables from one transaction to the next, which a pooler may put on another "
            "server: run it with DATABASE_URL of Postgres itself",
        )
    await queries.make_shadow(connection)
    try:
        events = await _fold(connection, progress)
        before = await _examine(connection, events, progress)
        if dry_run or not (before.missing or before.different):
            return Rebuilt(events, before, 0, None)
        progress("repair", 0, 1)
        try:
            repaired = await _repair(connection)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            raise DependencyDown(
                "postgres", f"{error}; nothing was changed: look for a hanging transaction, then run it again"
            ) from error
        progress("repair", 1, 1)
        return Rebuilt(events, before, repaired, await _examine(connection, events, progress))
    finally:
        if not connection.is_closed():
            await queries.empty_shadow(connection)


async def _fold(connection: Session, progress: Progress) -> int:
    total = int(await queries.count_events(connection))
    done = 0
    progress("fold", done, total)
    async for page in fold_archive(connection):
        await _write_shadow(connection, page.jobs)
        done += page.events
        progress("fold", done, max(done, total))
    await queries.analyze_shadow(connection)
    return done


async def _examine(connection: Session, events: int, progress: Progress) -> Comparison:
    progress("examine", 0, events)
    async with connection.transaction(isolation="repeatable_read"):
        await _catch_up(connection, queries.news.sql)
        await connection.execute("TRUNCATE differing_jobs")
        await queries.compare(connection)
        await _keep_what_the_archive_does_not_tell(connection)
        totals = await queries.totals(connection)
        differences = await queries.differences(connection, size=_EXAMPLES)
        gaps = await find_gaps(connection, examples=_EXAMPLES)
    progress("examine", events, events)
    return Comparison(
        jobs=totals["jobs"],
        rows=totals["rows"],
        archive_fingerprint=totals["archive_fingerprint"],
        row_fingerprint=totals["row_fingerprint"],
        missing=differences["missing"],
        different=differences["different"],
        examples=differences["examples"],
        kept=totals["kept"],
        without_events=totals["all_rows"] - totals["rows_with_events"],
        unreadable_jobs=totals["unreadable"],
        unreadable=differences["unreadable"],
        gaps=gaps,
    )


async def _repair(connection: Session) -> int:
    async with connection.transaction():
        await connection.execute(_LOCK_TIMEOUT)
        await queries.add_missing_rows(connection)
        await queries.lock_differing(connection)
        # This statement begins after the locks were taken, so it sees all that their former holders committed.
        await _catch_up(connection, queries.news_of_differing.sql)
        repaired = int(await queries.repair(connection))
        await note(connection, Act("projection.rebuild", "read model", effects={"repaired": repaired}))
        return repaired


async def _catch_up(connection: Session, news: str) -> None:
    """Fold events onto the shadow, read by a cursor: there may be many."""
    rows: list[asyncpg.Record] = []
    # The cursor's snapshot is that of its start, and the shadow changes only for jobs that it has passed.
    async for row in connection.cursor(news, prefetch=_CHUNK):
        if len(rows) >= _CHUNK and row["job_id"] != rows[-1]["job_id"]:
            await _absorb(connection, rows)
            rows = []
        rows.append(row)
    await _absorb(connection, rows)


async def _absorb(connection: Session, rows: Sequence[asyncpg.Record]) -> None:
    if not rows:
        return
    job_ids = list({row["job_id"] for row in rows})
    known = {}
    async for row in queries.shadow_states(connection, job_ids=job_ids):
        state = JobState(**{name: row[name] for name in COLUMNS})
        known[JobId(row["job_id"])] = Folded(state, row["last_sequence"], row["unreadable"])
    await queries.forget(connection, job_ids=job_ids)
    await _write_shadow(connection, list(absorb(rows, known)))


async def _write_shadow(connection: Session, jobs: Sequence[Folded]) -> None:
    await connection.copy_records_to_table(
        "rebuilt_jobs",
        records=[
            (*(getattr(folded.state, name) for name in COLUMNS), folded.last_sequence, folded.unreadable)
            for folded in jobs
        ],
        columns=[*COLUMNS, "last_sequence", "unreadable"],
    )


async def _keep_what_the_archive_does_not_tell(connection: Session) -> None:
    after = UUID(int=0)
    while rows := [row async for row in queries.differing_rows(connection, job_id=after, size=_CHUNK)]:
        job_ids = [row["job_id"] for row in rows]
        kept = [row["job_id"] async for row in queries.kept(connection, job_ids=job_ids, terminal_types=TERMINAL_TYPES)]
        await queries.keep(connection, job_ids=kept)
        after = job_ids[-1]
