"""Operators manage webhook endpoints: where an organization is told of its events.

What is changed commits with its line in the log of actions. The workers read the same rows at each try, so whatever
changes holds from the next try on; if a process dies before the commit, nothing has changed.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from consumers.webhooks import deliveries, endpoints
from consumers.webhooks.addresses import WrongUrl, checked_url
from consumers.webhooks.deliveries import DeliveryState, State
from consumers.webhooks.endpoints import Endpoint
from consumers.webhooks.messages import EVENT_TYPES, TEST, body_of, make_secret
from infra.actions import Act, acting, current_actor
from infra.errors import TeamfitError
from infra.operations.cursors import read_delivery_cursor, read_endpoint_cursor, write_cursor
from infra.operations.tenants import organization_in
from infra.postgres import Connection, Database
from infra.settings import Settings
from infra.texts import storable
from streams.jobs.known_names import unknown_names

MOST_ENDPOINTS: Final = 20
"""Of one organization: each costs a request for each event."""
KEEP_SECRET: Final = timedelta(days=1)
"""How long the secret before signs too, unless asked otherwise."""
_LONGEST_KEEP: Final = timedelta(days=30)
_LONGEST_REASON: Final = 500
MOST_LISTED: Final = 500


class InvalidWebhook(TeamfitError):
    """An endpoint cannot be so. The message names the field and the fix."""


class UnknownWebhook(TeamfitError):
    """There is no such endpoint."""


@dataclass(frozen=True, slots=True)
class Secret:
    """An endpoint with its new secret, which is shown once."""

    endpoint: Endpoint
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class EndpointPage:
    """Endpoints by organization.

    Attributes:
        next: the cursor of the page after, if there is one.
        notice: why there are none, where the organization is not known.
    """

    endpoints: Sequence[Endpoint]
    next: str | None
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """Deliveries of an endpoint, the newest first. `next` is the cursor of the page after, if there is one."""

    deliveries: Sequence[DeliveryState]
    next: str | None


async def add_endpoint(
    database: Database, settings: Settings, organization_id: str, url: str, types: Sequence[str] = EVENT_TYPES
) -> Secret:
    """Add an endpoint, and return it with its secret.

    Raises:
        UnknownOrganization: there is none.
        InvalidWebhook: nothing can be sent there, a type is unknown, or the organization has as many as it may.
        DependencyDown: Postgres is away; whether it was added is unknown, so list them.
    """
    endpoint_id, secret = uuid4(), make_secret()
    act = Act("webhook.add", f"organization {organization_id}", effects={"endpoint": str(endpoint_id), "url": url})
    async with acting(database, act) as connection:
        wanted = _checked_types(types)
        act.effects["types"] = wanted
        _check_url(url, settings)
        await organization_in(connection, organization_id)
        if await endpoints.count(connection, organization_id) >= MOST_ENDPOINTS:
            raise InvalidWebhook(f"organization {organization_id} has {MOST_ENDPOINTS} endpoints; remove one first")
        await endpoints.add(
            connection,
            endpoint_id,
            organization_id=organization_id,
            url=url,
            types=wanted,
            secret=secret,
            now=database.clock.now(),
        )
        return Secret(await _endpoint(connection, endpoint_id), secret)


async def list_endpoints(
    database: Database, organization_id: str | None = None, *, limit: int = MOST_LISTED, cursor: str | None = None
) -> EndpointPage:
    """Return a page of the endpoints of an organization, or of all.

    Raises:
        Refused: the cursor is none.
        DependencyDown: Postgres is away.
    """
    after = None
    if cursor is not None:
        at, endpoint_id, organization = read_endpoint_cursor(cursor)
        after = (organization, at, endpoint_id)
    async with database.transaction(for_values=True) as connection:
        found = await endpoints.endpoints(connection, organization_id, after=after, limit=limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    following = write_cursor(last.created_at, last.id, last.organization_id) if last else None
    notice = None if found or after else await unknown_names(database, organization_id=organization_id)
    return EndpointPage(found[:limit], following, notice)


async def show_endpoint(database: Database, endpoint_id: UUID) -> Endpoint:
    """Return an endpoint. Raises UnknownWebhook."""
    async with database.transaction() as connection:
        return await _endpoint(connection, endpoint_id)


async def rotate_secret(database: Database, endpoint_id: UUID, *, keep: timedelta = KEEP_SECRET) -> Secret:
    """Make a new secret, and return the endpoint with it. The one before signs too for a while; an older one no more.

    Args:
        database: where.
        endpoint_id: which.
        keep: for how long; zero, if it has leaked: not at all.

    Raises:
        UnknownWebhook: there is none.
        InvalidWebhook: it cannot be kept for so long.
    """
    secret, effects = make_secret(), {"old_one_kept_for": str(keep)}
    async with _changing(database, "rotate", endpoint_id, effects=effects) as (connection, _, _):
        if not timedelta() <= keep <= _LONGEST_KEEP:
            raise InvalidWebhook(f"keep: give a time of at most {_LONGEST_KEEP.days} days, such as 24h; 0s: not at all")
        await endpoints.rotate(connection, endpoint_id, secret, until=database.clock.now() + keep)
        return Secret(await _endpoint(connection, endpoint_id), secret)


async def disable_endpoint(database: Database, endpoint_id: UUID, because: str) -> Endpoint:
    """Send nothing to an endpoint any more. What is for it waits until it is enabled, or past its retention.

    Raises:
        UnknownWebhook: there is none.
        InvalidWebhook: it is not said why.
    """
    async with _changing(database, "disable", endpoint_id, reason=because) as (connection, _, _):
        if not because.strip() or len(because) > _LONGEST_REASON:
            raise InvalidWebhook(f"because: say why, in at most {_LONGEST_REASON} characters")
        why = f"{current_actor().name}: {storable(because, _LONGEST_REASON)}"
        await endpoints.disable(connection, endpoint_id, why, now=database.clock.now())
        return await _endpoint(connection, endpoint_id)


async def enable_endpoint(database: Database, endpoint_id: UUID) -> Endpoint:
    """Send to an endpoint again, at once what has waited for it. Raises UnknownWebhook."""
    async with _changing(database, "enable", endpoint_id) as (connection, act, _):
        await endpoints.enable(connection, endpoint_id)
        act.effects["due_now"] = await deliveries.hasten(connection, endpoint_id, now=database.clock.now())
        return await _endpoint(connection, endpoint_id)


async def remove_endpoint(database: Database, endpoint_id: UUID) -> Endpoint:
    """Forget an endpoint with its secrets and all its deliveries; return what it was. Raises UnknownWebhook."""
    async with _changing(database, "remove", endpoint_id) as (connection, act, was):
        act.effects |= {"organization": was.organization_id, "url": was.url, "not_delivered": was.waiting}
        await endpoints.remove(connection, endpoint_id)
        return was


async def send_test(database: Database, endpoint_id: UUID) -> str:
    """Have a test sent to an endpoint, once; return its event's ID. A worker of the stage sends it.

    Raises:
        UnknownWebhook: there is none.
        InvalidWebhook: it is disabled.
    """
    event_id = f"test-{uuid4()}"
    async with _changing(database, "test", endpoint_id, effects={"event": event_id}) as (connection, _, known):
        if known.disabled_at is not None:
            raise InvalidWebhook(f"webhook {endpoint_id} is disabled ({known.disabled_because}); enable it first")
        now = database.clock.now()
        body = body_of(TEST, now, {"endpoint_id": str(endpoint_id), "organization_id": known.organization_id})
        await deliveries.record_test(connection, endpoint_id, event_id, body, now=now)
    return event_id


async def list_deliveries(
    database: Database, endpoint_id: UUID, *, state: State | None = None, limit: int = 50, cursor: str | None = None
) -> DeliveryPage:
    """Return a page of the deliveries of an endpoint, the newest first.

    Raises:
        UnknownWebhook: there is none.
        Refused: the cursor is none.
    """
    before = None if cursor is None else read_delivery_cursor(cursor)
    limit = min(limit, MOST_LISTED)
    async with database.transaction() as connection:
        await _endpoint(connection, endpoint_id)
        found = await deliveries.deliveries(connection, endpoint_id, state=state, limit=limit + 1, before=before)
    last = found[limit - 1] if len(found) > limit else None
    return DeliveryPage(found[:limit], write_cursor(last.created_at, last.event_id) if last else None)


@asynccontextmanager
async def _changing(
    database: Database,
    what: str,
    endpoint_id: UUID,
    *,
    reason: str | None = None,
    effects: Mapping[str, Any] | None = None,
) -> AsyncIterator[tuple[Connection, Act, Endpoint]]:
    """Give the transaction of an action on an endpoint that is there, and the endpoint as it was."""
    act = Act(f"webhook.{what}", f"webhook {endpoint_id}", reason, dict(effects or {}))
    async with acting(database, act) as connection:
        await endpoints.lock(connection, endpoint_id)
        yield connection, act, await _endpoint(connection, endpoint_id)


async def _endpoint(connection: Connection, endpoint_id: UUID) -> Endpoint:
    found = await endpoints.endpoint(connection, endpoint_id)
    if found is None:
        raise UnknownWebhook(f"webhook {endpoint_id}: not found; `teamfit webhooks list` has all")
    return found


def _checked_types(types: Sequence[str]) -> list[str]:
    unknown = sorted(set(types) - set(EVENT_TYPES))
    if unknown or not types:
        what = f"there is no {', '.join(unknown)}" if unknown else "none is given"
        raise InvalidWebhook(f"types: {what}; there are {', '.join(EVENT_TYPES)}")
    return sorted(set(types))


def _check_url(url: str, settings: Settings) -> None:
    try:
        checked_url(url, allow_http=settings.webhook_allow_http, allow_private=settings.webhook_allow_private)
    except WrongUrl as error:
        raise InvalidWebhook(f"url: {error}") from error
