"""The events of one job, as the archive keeps them, and whether more will come."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import aiosql

from consumers.projection.status import find_job
from infra.auth import Caller
from infra.postgres import Connection
from streams.jobs.events import TERMINAL_KINDS, TERMINAL_TYPES

_queries = aiosql.from_path(Path(__file__).with_name("queries.sql"), "asyncpg")

KINDS: Final = ("requested", "started", "progressed", "cancel-requested", *TERMINAL_KINDS)
"""The kinds of event that the archive keeps."""


@dataclass(frozen=True, slots=True)
class ArchivedEvent:
    """One event of the archive; `sequence` is its place there, `event` the CloudEvent."""

    sequence: int
    run: int
    type: str
    event: dict[str, Any]

    @property
    def kind(self) -> str:
        """Return "completed" of "teamfit.job.completed.v1"."""
        return self.type.removeprefix("teamfit.job.").rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Told:
    """The events of a job after one of them.

    Attributes:
        events: in their order.
        over: no more will come.
    """

    events: Sequence[ArchivedEvent]
    over: bool


async def events_of(connection: Connection, job_id: UUID, caller: Caller, *, after: int) -> Told | None:
    """Return the events after this one, or None if the organization lacks the job.

    The status may say sooner than the archive that a job has ended: a cancellation is decided before it is told.
    """
    job = await find_job(connection, job_id, caller)
    if job is None:
        return None
    whose = {"job_id": job_id, "organization_id": caller.organization_id}
    # Asked before the events are read: an end that is told by now is among them, or before `after`. Of a job of the
    # Celery days, or one whose events are past their retention, there is nothing to send.
    over = job.has_ended and await _queries.nothing_follows(connection, **whose, run=job.run, ends=list(TERMINAL_TYPES))
    rows = _queries.events(connection, **whose, after=after)
    return Told([ArchivedEvent(**row) async for row in rows], over)
