"""This module writes `webhook_deliveries`: a row for each endpoint and event.

Every function works in its caller's transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal, TypeAlias
from uuid import UUID

import aiosql

from consumers.webhooks.messages import JOB_TYPES, TEST, Message
from consumers.webhooks.retries import Answer
from infra.postgres import Connection, columns, plan_for_values

_queries = aiosql.from_path(Path(__file__).with_name("deliveries.sql"), "asyncpg")

State: TypeAlias = Literal["waiting", "delivered", "given_up"]

# The archive is younger than a transaction of the projection may take, so that no fact comes in behind the mark.
_SETTLED_AFTER: Final = timedelta(minutes=2)
_PAGE: Final = 5_000


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that this process has taken, with all that a try needs.

    Attributes:
        event: the fact; None of a test.
        attempts: tries before.
        taken_until: when another process may take it.
    """

    endpoint_id: UUID
    event_id: str
    type: str
    job_id: UUID | None
    event: bytes | None
    body: str
    attempts: int
    taken_until: datetime
    created_at: datetime
    organization_id: str
    url: str
    secret: str = field(repr=False)
    secret_before: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class DeliveryState:
    """A delivery as operators see it. `due_at`: its next try; None of one that has arrived or was given up."""

    event_id: str
    type: str
    job_id: UUID | None
    created_at: datetime
    attempts: int
    last_attempt_at: datetime | None
    last_status: int | None
    last_error: str | None
    delivered_at: datetime | None
    given_up_at: datetime | None
    due_at: datetime | None

    @property
    def state(self) -> State:
        """Return how far it is."""
        return "delivered" if self.delivered_at else "given_up" if self.given_up_at else "waiting"


async def record(connection: Connection, messages: Sequence[Message], *, now: datetime) -> int:
    """Have messages delivered to the endpoints that want them; return how many deliveries are new.

    Repeating it changes nothing. A message for one endpoint alone is one that was given up before, and is tried anew.
    """
    again = [one for one in messages if one.endpoint_id is not None]
    for one in again:
        await _queries.record_again(
            connection,
            **{name: getattr(one, name) for name in _COLUMNS.values()},
            endpoint_id=one.endpoint_id,
            now=now,
        )
    first = [one for one in messages if one.endpoint_id is None]
    return int(await _queries.record(connection, **columns(first, **_COLUMNS), now=now)) if first else 0


_COLUMNS: Final = {
    "organization_ids": "organization_id",
    "event_ids": "event_id",
    "types": "type",
    "job_ids": "job_id",
    "events": "event",
    "bodies": "body",
}


async def record_test(connection: Connection, endpoint_id: UUID, event_id: str, body: str, *, now: datetime) -> None:
    """Have a test delivered to an endpoint."""
    await _queries.record_test(connection, endpoint_id=endpoint_id, event_id=event_id, type=TEST, body=body, now=now)


async def claim(
    connection: Connection,
    *,
    now: datetime,
    taken_until: datetime,
    free: int,
    most: int,
    most_failing: int,
    busy: Mapping[UUID, int],
) -> list[Due]:
    """Take deliveries that are due, each endpoint in turn.

    Args:
        connection: whose commit makes them this process's.
        now: the time.
        taken_until: when another process may take them.
        free: how many are taken.
        most: how many an endpoint may have under way.
        most_failing: how many one may that took nothing lately.
        busy: how many each has under way already.
    """
    rows = _queries.claim(
        connection,
        now=now,
        taken_until=taken_until,
        free=free,
        most=most,
        most_failing=most_failing,
        busy_ids=list(busy),
        busy=list(busy.values()),
    )
    return [Due(**row) async for row in rows]


async def settle(
    connection: Connection, due: Due, answer: Answer, *, now: datetime, next_at: datetime | None, given_up: bool
) -> bool:
    """Note how a try ended; return whether it was this process's to note.

    Args:
        connection: of the caller's transaction.
        due: what was tried.
        answer: what the receiver said.
        now: when.
        next_at: the next try, if there is one.
        given_up: whether there is none, though it has not arrived.
    """
    attempts = await _queries.settle(
        connection,
        endpoint_id=due.endpoint_id,
        event_id=due.event_id,
        taken_until=due.taken_until,
        now=now,
        status=answer.status,
        problem=answer.problem,
        due_at=next_at or now,
        delivered=answer.is_good,
        given_up=given_up,
    )
    return attempts is not None


async def hasten(connection: Connection, endpoint_id: UUID, *, now: datetime) -> int:
    """Make due what waits for an endpoint; return how much does."""
    return int(await _queries.hasten(connection, endpoint_id=endpoint_id, now=now))


async def deliveries(
    connection: Connection, endpoint_id: UUID, *, state: State | None, limit: int, before: tuple[datetime, str] | None
) -> list[DeliveryState]:
    """Return deliveries of an endpoint, the newest first, after the time and event of one."""
    at, event_id = before or (None, None)
    await plan_for_values(connection, by_index=True)
    rows = _queries.deliveries(
        connection, endpoint_id=endpoint_id, state=state, limit=limit, before_at=at, before_id=event_id
    )
    return [DeliveryState(**row) async for row in rows]


async def forgotten(connection: Connection, *, now: datetime) -> list[object]:
    """Return archived facts that an endpoint wants and no delivery is about.

    The next call goes on from there, if this transaction commits. Nothing is returned while another process looks.
    """
    await _queries.start_progress(connection)
    after = await _queries.lock_progress(connection)
    if after is None:
        return []
    last = await _queries.page(connection, after=after, before=now - _SETTLED_AFTER, size=_PAGE)
    if last is None or last <= after:
        return []
    rows = _queries.forgotten(connection, after=after, last=last, types=list(JOB_TYPES.values()), kinds=list(JOB_TYPES))
    found = [row["event"] async for row in rows]
    await _queries.note_progress(connection, sequence=last)
    return found
