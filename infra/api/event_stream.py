"""A job's events as server-sent events.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from random import randint
from uuid import UUID

import orjson
import structlog
from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from consumers.projection.archive import ArchivedEvent, Told, events_of
from consumers.projection.changes import Changes
from infra.api.stream_limits import StreamLimits
from infra.auth import Caller
from infra.errors import DependencyDown, JobNotFound
from infra.postgres import Connection, Database

log = structlog.get_logger(__name__)

# A client whose stream ends comes back by itself, and shows its token again.
_LONGEST_S = 600.0
# Proxies cut a connection on which nothing happens.
_KEEP_ALIVE_S = 15.0
# All who listened to a process that stops come to the others, within so many milliseconds.
_BACK_WITHIN_MS = (200, 2_000)
# No proxy keeps, gathers or compresses what is to arrive at once.
_HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}


@dataclass(frozen=True, slots=True)
class EventStream:
    """The events of one job, for a caller whose job it is."""

    database: Database
    changes: Changes
    limits: StreamLimits
    job_id: UUID
    caller: Caller

    async def respond(self, *, after: int, opening: Callable[[Connection], Awaitable[None]]) -> Response:
        """Return the stream of events after this one. It is 204 if the job has ended and none follows.

        Args:
            after: the number of the last event that is known.
            opening: called in the transaction that looks first, which is rolled back if the stream is refused.

        Raises:
            JobNotFound: the caller has no such job.
            Refused: its organization opens too many streams.
            DependencyDown: Postgres is away.
        """
        self.limits.admit(self.caller.organization_id)
        async with self.database.transaction() as connection:
            await opening(connection)
            found = await events_of(connection, self.job_id, self.caller, after=after)
            if found is None:
                raise JobNotFound(self.job_id)
        if found.over and not found.events:
            return Response(status_code=204, headers=_HEADERS)
        return _Held(self, self._lines(found, after))

    async def _lines(self, found: Told | None, after: int) -> AsyncIterator[bytes]:
        end = asyncio.get_running_loop().time() + _LONGEST_S
        yield b"retry: 2000\n\n"
        with self.changes.of(self.job_id) as changed:
            while found is not None:
                for event in found.events:
                    after = event.sequence
                    yield _message(event)
                if found.over:
                    return
                if self.changes.is_over or asyncio.get_running_loop().time() >= end:
                    yield b": not the end: come back with Last-Event-ID\nretry: %d\n\n" % randint(*_BACK_WITHIN_MS)
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

    async def _read(self, after: int) -> Told | None:
        async with self.database.transaction() as connection:
            return await events_of(connection, self.job_id, self.caller, after=after)


class _Held(StreamingResponse):
    """A stream that counts as open for as long as it is sent."""

    def __init__(self, stream: EventStream, lines: AsyncIterator[bytes]) -> None:
        super().__init__(lines, headers=_HEADERS, media_type="text/event-stream")
        self._held = stream.limits.held(stream.caller.organization_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._held:
            await super().__call__(scope, receive, send)


def _message(event: ArchivedEvent) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.sequence, event.kind.encode(), orjson.dumps(event.event))
