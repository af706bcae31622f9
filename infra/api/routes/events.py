"""Customers follow a job's events over HTTP, by a token or by a ticket."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import BaseModel, BeforeValidator, Field

from consumers.projection.archive import KINDS
from consumers.projection.changes import Changes
from infra.api.bearer import Authenticated, scheme
from infra.api.event_stream import EventStream
from infra.api.problems import TOKEN, responses
from infra.api.routes.jobs import read_job
from infra.api.stream_limits import StreamLimits
from infra.api.tickets import LIFE, Tickets
from infra.auth import JOBS, Caller
from infra.identity import Tokens
from infra.postgres import Database
from infra.uuids import GivenUuid

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
