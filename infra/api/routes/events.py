"""Customers follow a job's events over HTTP, by a token or by a ticket.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from random import randint
from typing import Annotated, Any
from uuid import UUID

import orjson
import structlog
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import BaseModel, BeforeValidator, Field
from starlette.types import Receive, Scope, Send

from consumers.projection.archive import KINDS, ArchivedEvent, Told, events_of
from consumers.projection.changes import Changes
from infra.api.caller import Authenticated, scheme
from infra.api.limits import StreamLimits
from infra.api.problems import TOKEN, responses
from infra.api.routes.jobs import read_job
from infra.api.tickets import LIFE, Tickets
from infra.auth import JOBS, Caller
from infra.errors import DependencyDown, JobNotFound
from infra.identity import Tokens
from infra.postgres import Connection, Database
from infra.uuids import GivenUuid

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


_MESSAGE = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string", "enum": list(KINDS)},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Each event as it is archived, from the first on.",
        "content": {"text/event-stream": {"schema": _MESSAGE}},
    },
    204: {"description": "The job has ended and there is nothing after `Last-Event-ID`: do not come back."},
}
_PROBLEMS = (*TOKEN, "job_not_found", "invalid_request", "database_unavailable", "too_many_streams")
_EVENTS = _STREAM | responses(*_PROBLEMS, "ticket_invalid")

LastEventId = Annotated[
    int,
    Header(alias="Last-Event-ID", ge=0, lt=2**63, description="Go on after this event; browsers send it."),
    BeforeValidator(lambda text: 0 if isinstance(text, str) and not text.strip() else text),  # of no event yet
]
After = Annotated[int, Query(ge=0, lt=2**63, description="The same, for an `EventSource` with a new ticket.")]
Ticket = Annotated[
    str | None, Query(description=f"From `events-ticket`, in place of a token: for one use within {LIFE.seconds} s.")
]


class EventsTicket(BaseModel):
    """A ticket for the events of one job, in place of a token."""

    ticket: str = Field(description="For the query of `events`, once.")
    events_url: str = Field(description="The path of the events, with the ticket: what `EventSource` opens.")
    expires_at: datetime


def create_router(database: Database, tokens: Tokens, changes: Changes) -> APIRouter:
    """Return the routes of a job's events."""
    router = APIRouter(prefix="/api/jobs", tags=["jobs"])
    authenticated = Authenticated(tokens, scope=JOBS)
    limits, tickets, asked_for = StreamLimits(), Tickets(database), StreamLimits()

    @router.post("/{job_id}/events-ticket", responses=responses(*_PROBLEMS))
    async def create_events_ticket(
        job_id: GivenUuid, caller: Annotated[Caller, Depends(authenticated)], request: Request, response: Response
    ) -> EventsTicket:
        """Make a ticket for the job's events, because a browser's `EventSource` sends no token.

        It opens the stream once, within a minute. Ask for another one when the stream breaks off.
        """
        response.headers["Cache-Control"] = "no-store"
        asked_for.admit(caller.organization_id)
        await read_job(database, job_id, caller)
        ticket, ends = await tickets.issue(job_id, caller.organization_id)
        path = f"{request.scope.get('root_path', '')}/api/jobs/{job_id}/events?ticket={ticket}"
        return EventsTicket(ticket=ticket, events_url=path, expires_at=ends)

    async def of_token_or_ticket(
        job_id: GivenUuid,
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(scheme)],
    ) -> Caller:
        return await tickets.caller(request, job_id) or await authenticated(request, credentials)

    @router.get("/{job_id}/events", response_class=Response, responses=_EVENTS)
    async def get_events(
        job_id: GivenUuid,
        caller: Annotated[Caller, Depends(of_token_or_ticket)],
        request: Request,
        last_event_id: LastEventId = 0,
        after: After = 0,
        ticket: Ticket = None,  # noqa: ARG001 - for the document: by now it is out of the address
    ) -> Response:
        """Send the job's events as they come, as server-sent events, until the job has ended.

        Each has its number in the archive as `id`, its kind, such as `completed`, as `event`, and the CloudEvent as
        `data`. A client that lost its connection goes on after the last event that it has seen.
        """
        stream = EventStream(database, changes, limits, job_id, caller)
        return await stream.respond(
            after=max(last_event_id, after), opening=lambda connection: tickets.use(connection, request, job_id)
        )

    return router
