"""This module writes `failed_events`. A row is what a stage gave up or the transport buried, and what became of it.

A stage writes its row before anything else follows from giving up, so no run has failed of which nothing can be found.
Repeating a write changes nothing. A row whose fields Postgres does not take is written without them: the bytes alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from uuid import UUID

import aiosql
import structlog

from infra import telemetry
from infra.clock import Clock
from infra.errors import DependencyDown
from infra.postgres import Connection, Database, columns
from infra.texts import storable
from streams.delivery.letters import FailedEvent

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("failed_events.sql"), "asyncpg")

# One statement's events are in memory several times over, here and in the server.
_LARGEST_STATEMENT = 8 * 2**20
_LONGEST_NAME = 200


async def discard(
    connection: Connection, ids: Sequence[UUID], occurrences: Sequence[int], *, because: str, by: str, now: datetime
) -> Sequence[UUID]:
    """Set open events aside that have failed so often and no oftener; return which."""
    return list(
        await _queries.discard(connection, ids=ids, occurrences=occurrences, because=because, discarded_by=by, now=now)
    )


async def mark_replayed(
    connection: Connection, ids: Sequence[UUID], occurrences: Sequence[int], *, now: datetime
) -> None:
    """Note that events were sent again, and how often each had failed until then."""
    await _queries.mark_replayed(connection, ids=ids, occurrences=occurrences, now=now)


@dataclass(frozen=True, slots=True)
class FailedEvents:
    """Writes dead letters to `failed_events`, in batches."""

    database: Database
    clock: Clock

    async def keep(self, letters: Sequence[FailedEvent]) -> Sequence[None]:
        """Keep a batch in one transaction. A letter that is kept already changes nothing.

        An entry that failed anew, by the time on the letter, counts one more occurrence, and shows its latest error. A
        letter without a time got none from a stage of ours; it counts once.

        Raises:
            DependencyDown: Postgres is away; whether they were kept is unknown, and keeping them again is safe.
        """
        now = self.clock.now()
        rows = list(_rows(letters, now))
        async with self.database.transaction() as connection:
            for some in _chunks(rows):
                failures = [(row.latest.id, time) for row in some for time in row.times]
                await _queries.keep(
                    connection,
                    **columns(
                        [row.latest for row in some],
                        ids="id",
                        topics="topic",
                        stages="stage",
                        reasons="reason",
                        keys="key",
                        events="event",
                        headers="headers",
                        error_types="error_type",
                        error_messages="error_message",
                        tracebacks="traceback",
                        attempts="attempts",
                        event_ids="event_id",
                        event_types="event_type",
                        job_ids="job_id",
                        runs="run",
                        organization_ids="organization_id",
                        trace_ids="trace_id",
                    ),
                    occurrences=[len(row.times) or 1 for row in some],
                    first_times=[row.times[0] if row.times else now for row in some],
                    last_times=[row.times[-1] if row.times else now for row in some],
                    failure_ids=[letter_id for letter_id, _ in failures],
                    failure_times=[time for _, time in failures],
                )
        return [None] * len(letters)

    async def keep_one(self, letter: FailedEvent) -> None:
        """Keep one letter, whatever it holds. At the least its bytes, its stage and the kind of its error are kept.

        Raises:
            DependencyDown: Postgres is away.
        """
        try:
            await self.keep([letter])
        except DependencyDown:
            raise
        except Exception as error:
            log.exception("failed_event.undescribed", id=str(letter.id), stage=letter.stage)
            telemetry.UNDESCRIBED.inc()
            async with self.database.transaction() as connection:
                await _queries.keep_bytes(
                    connection,
                    id=letter.id,
                    topic=storable(letter.topic, _LONGEST_NAME) or "unknown",
                    stage=storable(letter.stage, _LONGEST_NAME) or "unknown",
                    key=letter.key,
                    event=letter.event,
                    error_type=storable(letter.error_type, _LONGEST_NAME) or "unknown",
                    error_message=f"no more could be kept than its bytes: {type(error).__name__}",
                    now=self.clock.now(),
                )


@dataclass(frozen=True, slots=True)
class _Row:
    """All letters of a batch about one entry: the latest, and each known time at which the entry failed, in order."""

    latest: FailedEvent
    times: Sequence[datetime]


def _rows(letters: Sequence[FailedEvent], now: datetime) -> Iterator[_Row]:
    """Fold a batch to one row per entry, since one statement may not touch a row twice.

    Rows come by ID: two workers that keep the same letters lock them in the same order.
    """
    for _, group in groupby(sorted(letters, key=attrgetter("id")), key=attrgetter("id")):
        same = sorted(group, key=lambda letter: letter.failed_at or now)
        yield _Row(same[-1], sorted({letter.failed_at for letter in same if letter.failed_at}))


def _chunks(rows: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    chunk: list[_Row] = []
    size = 0
    for row in rows:
        size += len(row.latest.event or b"")
        if chunk and size > _LARGEST_STATEMENT:
            yield chunk
            chunk, size = [], len(row.latest.event or b"")
        chunk.append(row)
    if chunk:
        yield chunk
