"""This module writes `webhook_endpoints`: where organizations want to be told, and with which secret.

Every function works in its caller's transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

import aiosql

from infra.postgres import Connection

_queries = aiosql.from_path(Path(__file__).with_name("endpoints.sql"), "asyncpg")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A customer's own server, as an operator sees it: without its secrets.

    Attributes:
        types: the events that it wants.
        secret_before_until: until when the secret before signs too.
        failing_since: its first failure after its last success.
        disabled_because: why it is sent nothing.
        waiting: how many deliveries it has still to take, counted up to 10,000.
    """

    id: UUID
    organization_id: str
    url: str
    types: Sequence[str]
    created_at: datetime
    secret_before_until: datetime | None
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_because: str | None
    waiting: int


async def count(connection: Connection, organization_id: str) -> int:
    """Return how many endpoints an organization has; until the transaction ends, no other is added."""
    await _queries.lock_organization(connection, organization_id=organization_id)
    return int(await _queries.count(connection, organization_id=organization_id))


async def add(
    connection: Connection,
    endpoint_id: UUID,
    *,
    organization_id: str,
    url: str,
    types: Sequence[str],
    secret: str,
    now: datetime,
) -> None:
    """Add an endpoint."""
    await _queries.add(
        connection, id=endpoint_id, organization_id=organization_id, url=url, types=list(types), secret=secret, now=now
    )


async def endpoints(
    connection: Connection,
    organization_id: str | None = None,
    *,
    after: tuple[str, datetime, UUID] | None = None,
    limit: int | None = None,
) -> list[Endpoint]:
    """Return the endpoints of an organization, or all.

    Args:
        connection: of the caller's transaction.
        organization_id: whose.
        after: the organization, time and ID of the one after which they begin.
        limit: so many at most.
    """
    organization, at, endpoint_id = after or (None, None, None)
    rows = _queries.endpoints(
        connection,
        organization_id=organization_id,
        id=None,
        after_organization=organization,
        after_at=at,
        after_id=endpoint_id,
        limit=limit,
    )
    return [Endpoint(**row) async for row in rows]


async def lock(connection: Connection, endpoint_id: UUID) -> None:
    """Have no other change an endpoint until the transaction ends."""
    await _queries.lock(connection, id=endpoint_id)


async def endpoint(connection: Connection, endpoint_id: UUID) -> Endpoint | None:
    """Return an endpoint, or None."""
    place = {"after_organization": None, "after_at": None, "after_id": None}
    rows = _queries.endpoints(connection, organization_id=None, id=endpoint_id, limit=1, **place)
    found = [Endpoint(**row) async for row in rows]
    return found[0] if found else None


async def rotate(connection: Connection, endpoint_id: UUID, secret: str, *, until: datetime) -> None:
    """Sign with a new secret; until a time, the one before signs too."""
    await _queries.rotate(connection, id=endpoint_id, secret=secret, until=until)


async def disable(connection: Connection, endpoint_id: UUID, because: str, *, now: datetime) -> bool:
    """Send nothing to an endpoint any more; return whether that is new. What is for it waits."""
    return await _queries.disable(connection, id=endpoint_id, because=because, now=now) is not None


async def enable(connection: Connection, endpoint_id: UUID) -> None:
    """Send to an endpoint again."""
    await _queries.enable(connection, id=endpoint_id)


async def remove(connection: Connection, endpoint_id: UUID) -> None:
    """Forget an endpoint, and with it all that was or would be sent there."""
    await _queries.remove(connection, id=endpoint_id)


async def note_success(connection: Connection, endpoint_id: UUID) -> None:
    """Note that an endpoint took what it was sent."""
    await _queries.works(connection, id=endpoint_id)


async def note_failure(connection: Connection, endpoint_id: UUID, *, now: datetime) -> datetime:
    """Note that an endpoint failed; return since when it takes nothing."""
    return await _queries.fails(connection, id=endpoint_id, now=now) or now


async def listening(connection: Connection, organization_ids: Sequence[str]) -> set[str]:
    """Return which of these organizations have endpoints."""
    rows = _queries.listening(connection, organization_ids=list(organization_ids))
    return {row["organization_id"] async for row in rows}
