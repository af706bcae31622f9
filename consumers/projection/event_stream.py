"""A job's events as server-sent events.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import aiosql
import asyncpg
import orjson
import structlog
from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from consumers.projection.changes import Changes
from consumers.projection.status import find_job
from consumers.projection.stream_limits import StreamLimits
from infra.auth import Caller
from infra.errors import DependencyDown, JobNotFound
from infra.postgres import Database

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("queries.sql"), "asyncpg")

# A client whose stream ends comes back by itself, and shows its token again.
_LONGEST_S = 600.0
# Proxies cut a connection on which nothing happens.
_KEEP_ALIVE_S = 15.0
# No proxy keeps, gathers or compresses what is to arrive at once.
_HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
_ENDS = ("completed", "failed", "rejected", "cancelled")
NAMES: Final = ("requested", "started", "progressed", "cancel-requested", *_ENDS)
"""The kinds of event that the archive keeps, as which they are sent."""


@dataclass(frozen=True, slots=True)
class EventStream:
    """The events of one job, for a caller whose job it is."""

    database: Database
    changes: Changes
    limits: StreamLimits
    job_id: UUID
    caller: Caller

    async def respond(self, *, after: int) -> Response:
        """Return the stream of what comes after this event, or 204 if the job has ended and nothing does.

        Raises:
            JobNotFound: the caller has no such job.
            Refused: its organization opens too many streams.
            DependencyDown: Postgres is away.
        """
        self.limits.admit(self.caller.organization_id)
        found = await self._read(after)
        if not found.exists:
            raise JobNotFound(self.job_id)
        if found.over and not found.rows:
            return Response(status_code=204, headers=_HEADERS)
        return _Held(self, self._lines(found, after))

    async def _lines(self, found: "_Found", after: int) -> AsyncIterator[bytes]:
        end = asyncio.get_running_loop().time() + _LONGEST_S
        yield b"retry: 2000\n\n"
        with self.changes.of(self.job_id) as changed:
            while asyncio.get_running_loop().time() < end:
                for row in found.rows:
                    after = row["sequence"]
                    yield _message(row)
                if found.over:
                    return
                try:
                    async with asyncio.timeout(_KEEP_ALIVE_S):
                        await changed.wait()
                    changed.clear()
                except TimeoutError:
                    yield b": still there\n\n"
                try:
                    found = await self._read(after)
                except DependencyDown as error:
                    log.warning("events.cut_off", job_id=str(self.job_id), why=str(error))
                    return  # the client comes back, and is told by a status

    async def _read(self, after: int) -> "_Found":
        """Return the events after this one, and whether they are the last that the job's newest run will have.

        The status may say sooner than the archive that a job has ended: a cancellation is decided before it is told.
        """
        async with self.database.transaction() as connection:
            job = await find_job(connection, self.job_id, self.caller)
            found = _queries.events(connection, job_id=self.job_id, organization_id=self.caller.organization_id)
            rows = [row async for row in found]
        run = job.run if job is not None and job.has_ended else None
        ended = job is None or any(row["run"] == run and _kind(row) in _ENDS for row in rows)
        # Of a job of the Celery days, or one whose events are past their retention, there is nothing to send.
        over = ended or (run is not None and not rows)
        return _Found(job is not None, [row for row in rows if row["sequence"] > after], over)


class _Found(NamedTuple):
    """What a look at a job found: its events after the last one sent, and whether no more will come."""

    exists: bool
    rows: Sequence[asyncpg.Record]
    over: bool


class _Held(StreamingResponse):
    """A stream that counts as open for as long as it is sent."""

    def __init__(self, stream: EventStream, lines: AsyncIterator[bytes]) -> None:
        super().__init__(lines, headers=_HEADERS, media_type="text/event-stream")
        self._held = stream.limits.held(stream.caller.organization_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._held:
            await super().__call__(scope, receive, send)


def _kind(row: asyncpg.Record) -> str:
    """Return "completed" of "teamfit.job.completed.v1"."""
    kind: str = row["type"].removeprefix("teamfit.job.").rpartition(".")[0]
    return kind


def _message(row: asyncpg.Record) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (row["sequence"], _kind(row).encode(), orjson.dumps(row["event"]))
