"""A browser's `EventSource` sends no header, so it shows a ticket instead of a token.

A ticket opens the event stream of one job, once, within a minute, at any API process: Postgres has its hash until it is
used. Addresses land in logs, so the ticket leaves the request's before anything can write it down.
"""

import hashlib
import secrets
from collections.abc import MutableMapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote_to_bytes
from uuid import UUID

import aiosql
from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from infra.api.head import HEADERS_ALONE
from infra.api.problems import Problem
from infra.auth import JOBS, Caller
from infra.postgres import Connection, Database

_queries: Any = aiosql.from_path(Path(__file__).with_suffix(".sql"), "asyncpg")

LIFE: Final = timedelta(seconds=60)
"""How long a ticket may be used."""
_SHOWN: Final = "teamfit.events_ticket"
_FIELD: Final = b"ticket"
# More than come in the meantime, so that none pile up; few enough for one quick statement.
_MOST_SWEPT: Final = 100


class HiddenTickets:
    """Takes tickets out of addresses before any log can have them.

    It changes the scope itself, not a copy: uvicorn writes its access log from that.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and scope["query_string"]:
            _hide(scope)
        await self._app(scope, receive, send)


def _hide(scope: MutableMapping[str, Any]) -> None:
    kept = []
    for pair in scope["query_string"].split(b"&"):
        name, _, value = pair.partition(b"=")
        if unquote_to_bytes(name) == _FIELD:
            scope[_SHOWN] = value.decode("latin-1")
        else:
            kept.append(pair)
    scope["query_string"] = b"&".join(kept)


@dataclass(frozen=True, slots=True)
class Tickets:
    """Makes tickets, and takes each one once."""

    database: Database

    async def issue(self, job_id: UUID, organization_id: str) -> tuple[str, datetime]:
        """Return a ticket for the events of this job, and when it ends. The caller's right to the job was checked."""
        ticket = secrets.token_urlsafe(32)
        async with self.database.transaction() as connection:
            await _queries.sweep(connection, most=_MOST_SWEPT)
            ends = await _queries.add(
                connection, secret_hash=_hash(ticket), job_id=job_id, organization_id=organization_id, life=LIFE
            )
        return ticket, ends

    async def caller(self, request: Request, job_id: UUID) -> Caller | None:
        """Return for whom the ticket in a request's address speaks; None if it shows none. It stays good.

        Raises:
            Problem: 401, it was used, has ended, or is for another job.
        """
        shown = request.scope.get(_SHOWN)
        if shown is None:
            return None
        async with self.database.connection() as connection:
            organization_id = await _queries.holder(connection, secret_hash=_hash(shown), job_id=job_id)
        return Caller("events-ticket", _known(organization_id), frozenset({JOBS}))

    async def use(self, connection: Connection, request: Request, job_id: UUID) -> None:
        """Use up the ticket in a request's address, if it shows one.

        HEAD uses none up. This belongs into the transaction of the stream's first look: what refuses the stream rolls
        it back. A process that dies after the commit leaves a ticket that opens nothing; the page asks for another one.

        Raises:
            Problem: 401, somebody else has used it meanwhile.
        """
        shown = request.scope.get(_SHOWN)
        if shown is not None and HEADERS_ALONE not in request.scope:
            _known(await _queries.use(connection, secret_hash=_hash(shown), job_id=job_id))


def _known(organization_id: str | None) -> str:
    if organization_id is None:
        why = "the ticket was used, has expired, or is for another job; get a new one from `events-ticket`"
        raise Problem(401, "ticket_invalid", why, headers={"WWW-Authenticate": 'Bearer realm="teamfit"'})
    return organization_id


def _hash(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode()).digest()
