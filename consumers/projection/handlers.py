"""This module archives events and folds them into the read model.

It takes one transaction and three statements a batch: lock, archive, write. If the process dies before the commit,
nothing has happened; after it, the archive has the events, and their repeats change nothing.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import aiosql
import asyncpg
import structlog
from pydantic import ValidationError

from consumers.projection.changes import CHANNEL, GOES_ON, JOBS_IN_A_PAYLOAD
from consumers.projection.fold import JobState, fold, is_foreign, status_of
from infra.advice import explained
from infra.errors import TeamfitError
from infra.postgres import Connection, Database, columns
from infra.settings import Settings
from streams.delivery.batching import Batcher, Linger
from streams.delivery.deliveries import Delivery, Record
from streams.jobs.events import TERMINAL, JobCancelRequested, JobEvent, JobId, JobRequested
from streams.jobs.ownership import Ownership, archive_id

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("queries.sql"), "asyncpg")

# A caller waits for a job's end; that it was taken in, or has begun, may be told a moment later.
_LINGER_S: Final = 0.05


class Overtaken(TeamfitError):
    """Another transaction made a job's row meanwhile: roll back, and begin again."""


class Events:
    """This handler takes the believable events of all topics into the read model.

    Args:
        database: where it is.
        settings: of the process.
        at_once: how many events may be handled at once now.
    """

    def __init__(self, database: Database, settings: Settings, at_once: Callable[[], int]) -> None:
        self._ownership = Ownership(
            database,
            timeout=timedelta(seconds=settings.stage_timeout_s),
            linger=Linger(_LINGER_S, at_once, lambda event: isinstance(event, TERMINAL)),
        )
        self._batches: Batcher[JobEvent, Sequence[Record]] = Batcher(
            Projection(database).project, max_size=settings.batch_size, timeout_s=settings.stage_timeout_s
        )

    async def handle(self, event: JobEvent, _delivery: Delivery) -> Sequence[Record]:
        """Archive and fold an event; nothing follows.

        Raises:
            ForgedEvent: it must not be believed.
            DependencyDown: Postgres is away.
        """
        evidence = await self._ownership.check(event)
        # The cancellation of a job without a request is kept by quota; here it would make a job of it.
        if isinstance(event, JobCancelRequested) and evidence.owner is None:
            return ()
        return await self._batches.submit(event)


@dataclass(frozen=True, slots=True)
class Projection:
    """Keeps `job_events` and `customization_jobs`."""

    database: Database

    async def project(self, events: Sequence[JobEvent]) -> Sequence[Sequence[Record]]:
        """Archive the events and fold those that are new; nothing follows from any of them.

        The transaction commits before this returns. An event that is in the archive is not folded again, so repeating
        the call, with the same batch or another one that overlaps, changes nothing.

        Raises:
            DependencyDown: Postgres is away; whether the batch was committed is then unknown.
        """
        while True:
            with suppress(Overtaken):
                async with self.database.transaction() as connection:
                    await project(connection, events)
                return [()] * len(events)


async def project(connection: Connection, events: Sequence[JobEvent]) -> None:
    """Archive and fold in the caller's transaction.

    Raises:
        Overtaken: another worker made a job's row meanwhile.
    """
    before = await _lock(connection, sorted({event.job_id for event in events}))
    after = dict(before)
    unheard = {job_id for job_id, state in before.items() if state.run == 0}
    asked = {event.job_id for event in events if isinstance(event, JobRequested)}
    recorded = await _recorded_requests(connection, sorted(unheard - asked))
    news = await _archive(connection, [*recorded, *events])
    for event in news:
        state = after[event.job_id]
        if is_foreign(state, event):
            log.warning("event.mismatched", job_id=str(event.job_id), event_id=event.id, type=event.type)
        after[event.job_id] = fold(state, event)
    changed = [state for job_id, state in after.items() if state != before[job_id]]
    await _write_and_tell(connection, changed, [after[job_id] for job_id in sorted({event.job_id for event in news})])
    unfounded = [job_id for job_id, state in after.items() if state.run == 0]
    if unfounded:
        await _queries.drop_unfounded(connection, job_ids=unfounded)


async def _recorded_requests(connection: Connection, job_ids: Sequence[JobId]) -> list[JobEvent]:
    """Return the requests for these jobs that the intake has.

    A job that waits for its time may end before its request is published, and is a job with a team and a wish all the
    same.
    """
    if not job_ids:
        return []
    found = []
    async for row in _queries.recorded_requests(connection, job_ids=job_ids):
        try:
            found.append(JobRequested.model_validate(row["event"]))
        except ValidationError as error:
            # Of an older version with other bounds. The job's own events are told all the same.
            log.warning("request.not_read", job_id=str(row["job_id"]), why=explained(error))
    return list(found)


async def _lock(connection: Connection, job_ids: Sequence[JobId]) -> dict[JobId, JobState]:
    """Lock the jobs' rows, made where they are missing, before anything is archived.

    The order of a job's events in the archive is thus the order of folding them, whichever workers do it.

    Raises:
        Overtaken: one is not to be seen yet. Locking it later than its place in the order could end in a ring.
    """
    rows = _queries.lock_states(connection, job_ids=job_ids)
    states = {JobId(row["job_id"]): _state(row) async for row in rows}
    if len(states) < len(job_ids):
        raise Overtaken(
            f"{len(job_ids) - len(states)} of {len(job_ids)} jobs got their rows from another worker meanwhile"
        )
    return states


def _state(row: asyncpg.Record) -> JobState:
    if row["run"] == 0:
        return JobState(JobId(row["job_id"]))
    columns = dict(row)
    return JobState(**{**columns, "status": status_of(columns["status"])})


async def _archive(connection: Connection, events: Sequence[JobEvent]) -> list[JobEvent]:
    """Add the events to the archive and return the new ones, in its order."""
    rows = _queries.archive(
        connection,
        event_ids=[archive_id(event) for event in events],
        **columns(
            events, job_ids="job_id", runs="run", types="type", organization_ids="data.organization_id", times="time"
        ),
        events=[event.encode().decode() for event in events],
    )
    first = {(event.job_id, archive_id(event)): event for event in reversed(events)}
    new = sorted([(row["sequence"], JobId(row["job_id"]), row["event_id"]) async for row in rows])
    return [first[job_id, event_id] for _, job_id, event_id in new]


async def _write_and_tell(connection: Connection, changed: Sequence[JobState], news: Sequence[JobState]) -> None:
    job_ids = [f"{state.job_id}{'' if state.has_ended else GOES_ON}" for state in news]
    pages = [job_ids[at : at + JOBS_IN_A_PAYLOAD] for at in range(0, len(job_ids), JOBS_IN_A_PAYLOAD)]
    if not (changed or pages):
        return
    await _queries.write_and_tell(
        connection,
        **columns(
            changed,
            job_ids="job_id",
            organization_ids="organization_id",
            team_ids="team_id",
            requirements="requirements",
            runs="run",
            statuses="status",
            error_codes="error_code",
            error_messages="error_message",
            created_at="created_at",
            started_at="started_at",
            completed_at="completed_at",
        ),
        channel=CHANNEL,
        payloads=[",".join(page) for page in pages],
    )
