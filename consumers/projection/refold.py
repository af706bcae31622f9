"""This module folds the archive from its first event, in constant memory.

The archive is read by pages of events, ordered by job and then as the projection folded them. So at any time one job
is unfinished, and a job with more events than a page holds is carried over from one page to the next.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import aiosql
import asyncpg
from asyncpg.pool import PoolConnectionProxy

from consumers.projection.fold import JobState, fold
from infra.errors import InvalidEvent
from streams.jobs.events import TERMINAL_TYPES, JobId, parse_event

# A connection of one's own, or one of a pool.
Session: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

queries = aiosql.from_path(Path(__file__).with_name("rebuild.sql"), "asyncpg")

COLUMNS = tuple(field.name for field in fields(JobState))

# Large enough that round trips do not count, small enough that events of the greatest size fit in memory many times.
_PAGE = 2_000


@dataclass(frozen=True, slots=True)
class Folded:
    """The archive says this about a job.

    Attributes:
        last_sequence: of the last event in it.
        unreadable: why an event of the job could not be read; the state is then that before it.
    """

    state: JobState
    last_sequence: int = 0
    unreadable: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """These jobs are folded to their last event. The number of events read for them is counted."""

    jobs: Sequence[Folded]
    events: int


@dataclass(frozen=True, slots=True)
class Gaps:
    """The read model shows these jobs and events, and the archive misses them.

    Attributes:
        checked: rows of the read model.
        found: rows with a gap.
        examples: some of them, each a job ID and what is missing.
    """

    checked: int
    found: int
    examples: Sequence[str]


async def fold_archive(connection: Session, *, page: int = _PAGE) -> AsyncIterator[Page]:
    """Fold every job of the archive, by ID.

    Each page is a statement of its own. In a transaction at REPEATABLE READ all of them see one moment; outside of one,
    a job's later events may be missing, and so may jobs that came behind the reader's back.
    """
    current: Folded | None = None
    job_id, sequence = UUID(int=0), 0
    while rows := [row async for row in queries.page(connection, job_id=job_id, sequence=sequence, size=page)]:
        folded = list(absorb(rows, {current.state.job_id: current} if current else {}))
        if current and folded[0].state.job_id != current.state.job_id:
            folded.insert(0, current)
        *done, current = folded
        yield Page(done, len(rows))
        job_id, sequence = rows[-1]["job_id"], rows[-1]["sequence"]
    if current:
        yield Page([current], 0)


def absorb(rows: Iterable[asyncpg.Record], known: dict[JobId, Folded]) -> Iterable[Folded]:
    """Fold rows of the archive onto what is known of their jobs. The rows come job by job."""
    current: Folded | None = None
    for row in rows:
        job_id = JobId(row["job_id"])
        if current is None or current.state.job_id != job_id:
            if current is not None:
                yield current
            current = known.get(job_id) or Folded(JobState(job_id))
        current = _fold_row(current, row)
    if current is not None:
        yield current


def _fold_row(folded: Folded, row: asyncpg.Record) -> Folded:
    if folded.unreadable is not None:
        return replace(folded, last_sequence=row["sequence"])
    try:
        state = fold(folded.state, parse_event(row["event"].encode(), written_at=row["archived_at"]))
    except InvalidEvent as error:
        return replace(folded, last_sequence=row["sequence"], unreadable=f"event {row['sequence']}: {error}")
    return Folded(state, row["sequence"])


async def differing_columns(connection: Session, jobs: Sequence[Folded]) -> dict[JobId, Sequence[str]]:
    """Compare rows of the read model with the archive's; return the differing columns.

    A job without a row differs in `job_id`. Rows that are older than the archive are not judged by it.
    """
    job_ids = [folded.state.job_id for folded in jobs]
    rows = {row["job_id"]: row async for row in queries.live_states(connection, job_ids=job_ids)}
    differing: dict[JobId, Sequence[str]] = {}
    for folded in jobs:
        if folded.unreadable is not None:
            continue
        row = rows.get(folded.state.job_id)
        columns = ["job_id"] if row is None else [name for name in COLUMNS if row[name] != getattr(folded.state, name)]
        if columns:
            differing[folded.state.job_id] = columns
    if differing:
        async for row in queries.kept(connection, job_ids=list(differing), terminal_types=TERMINAL_TYPES):
            if row["older"]:
                del differing[JobId(row["job_id"])]
    return differing


async def find_gaps(connection: Session, *, examples: int) -> Gaps:
    """Say what the archive misses of what the read model shows.

    That is a job newer than the archive without any event, and a run that ended without its terminal fact.
    """
    row = await queries.gaps(connection, size=examples, terminal_types=TERMINAL_TYPES)
    return Gaps(row["checked"], row["found"], row["examples"])
