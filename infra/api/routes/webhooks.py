"""The operators' routes to webhook endpoints: where organizations are told of their events."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from consumers.webhooks.deliveries import DeliveryState, State
from consumers.webhooks.endpoints import Endpoint
from consumers.webhooks.messages import EVENT_TYPES
from infra.api.caller import Authenticated
from infra.api.problems import BODY, TOKEN, Problem, responses
from infra.auth import OPERATOR
from infra.identity import Tokens
from infra.operations import webhooks
from infra.operations.job_search import Term
from infra.operations.tenants import UnknownOrganization
from infra.operations.webhooks import MOST_LISTED, InvalidWebhook, Secret, UnknownWebhook
from infra.postgres import Database
from infra.settings import Settings

_DAY_S: Final = 86_400


class WebhookEndpoint(BaseModel):
    """A customer's own server that is told of its organization's events."""

    id: UUID
    organization_id: str
    url: str
    types: list[str]
    created_at: datetime
    secret_before_until: datetime | None = Field(description="Until when the secret before signs too.")
    failing_since: datetime | None = Field(description="Its first failure after its last success.")
    disabled_at: datetime | None
    disabled_because: str | None
    waiting: int = Field(description="How many deliveries it has still to take, counted up to 10,000.")


class WebhookEndpoints(BaseModel):
    """Endpoints, by organization."""

    endpoints: list[WebhookEndpoint]
    next: str | None = Field(description="Give it as `cursor` for the next page; absent on the last one.")
    notice: str | None = Field(description="Why there are none, where the organization is not known.")


class WebhookSecret(BaseModel):
    """An endpoint with its new signing secret, which is answered this once."""

    endpoint: WebhookEndpoint
    secret: str


class WebhookDelivery(BaseModel):
    """An event on its way to an endpoint."""

    event_id: str = Field(description="Its `webhook-id`.")
    type: str
    job_id: UUID | None
    state: State
    created_at: datetime
    attempts: int
    last_attempt_at: datetime | None
    last_status: int | None
    last_error: str | None
    delivered_at: datetime | None
    given_up_at: datetime | None
    due_at: datetime | None = Field(description="Its next try.")


class WebhookDeliveries(BaseModel):
    """Deliveries of an endpoint, the newest first."""

    deliveries: list[WebhookDelivery]
    next: str | None = Field(description="Give it as `cursor` for the next page; absent on the last one.")


class WebhookTest(BaseModel):
    """A test will be sent once; the list of deliveries says its answer."""

    event_id: str


class NewWebhook(BaseModel):
    """An endpoint to add."""

    model_config = ConfigDict(extra="forbid")

    organization_id: Term
    url: Term
    types: list[Term] = Field(
        default=list(EVENT_TYPES), max_length=50, description="The events that it wants; all if left out."
    )


class Rotation(BaseModel):
    """A wish for a new secret."""

    model_config = ConfigDict(extra="forbid")

    keep_s: float = Field(default=_DAY_S, ge=0, le=30 * _DAY_S, description="How long the secret before signs too.")


class Disabling(BaseModel):
    """The reason why an endpoint is disabled."""

    model_config = ConfigDict(extra="forbid")

    because: Term


class EndpointsQuery(BaseModel):
    """The query for the list of endpoints."""

    model_config = ConfigDict(extra="forbid")

    organization_id: Term | None = None
    limit: int = Field(default=MOST_LISTED, ge=1, le=MOST_LISTED)
    cursor: str | None = Field(default=None, max_length=1_000)


class DeliveriesQuery(BaseModel):
    """The query for the deliveries of an endpoint."""

    model_config = ConfigDict(extra="forbid")

    state: State | None = None
    limit: int = Field(default=50, ge=1, le=MOST_LISTED)
    cursor: str | None = Field(default=None, max_length=1_000)


_READS = responses(*TOKEN, "invalid_request", "database_unavailable")
_READS_ONE = responses(*TOKEN, "invalid_request", "webhook_not_found", "database_unavailable")
_ADDS = responses(*TOKEN, *BODY, "organization_not_found", "database_unavailable")
_WRITES = responses(*TOKEN, *BODY, "webhook_not_found", "database_unavailable")


def create_router(database: Database, tokens: Tokens, settings: Settings) -> APIRouter:
    """Return the routes."""
    guarded = [Depends(Authenticated(tokens, scope=OPERATOR, logs=database))]
    router = APIRouter(prefix="/api/ops/webhooks", tags=["operators"], dependencies=guarded)
    _add_reading(router, database)
    _add_secrets(router, database, settings)
    _add_changing(router, database)
    return router


def _add_reading(router: APIRouter, database: Database) -> None:
    @router.get("", responses=_READS)
    async def list_webhooks(query: Annotated[EndpointsQuery, Query()]) -> WebhookEndpoints:
        """List the webhook endpoints of an organization, or all."""
        page = await webhooks.list_endpoints(database, query.organization_id, limit=query.limit, cursor=query.cursor)
        return WebhookEndpoints(endpoints=[_shown(one) for one in page.endpoints], next=page.next, notice=page.notice)

    @router.get("/{endpoint_id}", responses=_READS_ONE)
    async def show_webhook(endpoint_id: UUID) -> WebhookEndpoint:
        """Return a webhook endpoint, without its secrets."""
        with _refusals():
            return _shown(await webhooks.show_endpoint(database, endpoint_id))

    @router.get("/{endpoint_id}/deliveries", responses=_READS_ONE)
    async def list_webhook_deliveries(
        endpoint_id: UUID, query: Annotated[DeliveriesQuery, Query()]
    ) -> WebhookDeliveries:
        """List the latest deliveries of an endpoint, and how they were answered."""
        with _refusals():
            page = await webhooks.list_deliveries(
                database, endpoint_id, state=query.state, limit=query.limit, cursor=query.cursor
            )
        return WebhookDeliveries(deliveries=[_delivery(one) for one in page.deliveries], next=page.next)


def _add_secrets(router: APIRouter, database: Database, settings: Settings) -> None:
    @router.post("", status_code=HTTPStatus.CREATED, responses=_ADDS)
    async def add_webhook(body: NewWebhook) -> WebhookSecret:
        """Add a webhook endpoint. Its signing secret is answered this once."""
        with _refusals():
            made = await webhooks.add_endpoint(database, settings, body.organization_id, body.url, body.types)
        return _secret(made)

    @router.post("/{endpoint_id}/rotate", responses=_WRITES)
    async def rotate_webhook_secret(endpoint_id: UUID, body: Rotation) -> WebhookSecret:
        """Make a new signing secret, answered this once. The one before signs too for a while."""
        with _refusals():
            made = await webhooks.rotate_secret(database, endpoint_id, keep=timedelta(seconds=body.keep_s))
        return _secret(made)


def _add_changing(router: APIRouter, database: Database) -> None:
    @router.post("/{endpoint_id}/disable", responses=_WRITES)
    async def disable_webhook(endpoint_id: UUID, body: Disabling) -> WebhookEndpoint:
        """Send nothing to an endpoint any more. What is for it waits until it is enabled."""
        with _refusals():
            return _shown(await webhooks.disable_endpoint(database, endpoint_id, body.because))

    @router.post("/{endpoint_id}/enable", responses=_READS_ONE)
    async def enable_webhook(endpoint_id: UUID) -> WebhookEndpoint:
        """Send to an endpoint again, at once what has waited for it."""
        with _refusals():
            return _shown(await webhooks.enable_endpoint(database, endpoint_id))

    @router.post("/{endpoint_id}/test", status_code=HTTPStatus.ACCEPTED, responses=_READS_ONE)
    async def test_webhook(endpoint_id: UUID) -> WebhookTest:
        """Have a test sent to an endpoint, once."""
        with _refusals():
            return WebhookTest(event_id=await webhooks.send_test(database, endpoint_id))

    @router.delete("/{endpoint_id}", responses=_READS_ONE)
    async def remove_webhook(endpoint_id: UUID) -> WebhookEndpoint:
        """Forget an endpoint with all its deliveries, and return what it was."""
        with _refusals():
            return _shown(await webhooks.remove_endpoint(database, endpoint_id))


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except UnknownWebhook as error:
        raise Problem(404, "webhook_not_found", str(error)) from error
    except UnknownOrganization as error:
        raise Problem(404, "organization_not_found", str(error)) from error
    except InvalidWebhook as error:
        raise Problem(422, "invalid_request", str(error)) from error


def _shown(endpoint: Endpoint) -> WebhookEndpoint:
    return WebhookEndpoint(**{name: getattr(endpoint, name) for name in WebhookEndpoint.model_fields})


def _secret(made: Secret) -> WebhookSecret:
    return WebhookSecret(endpoint=_shown(made.endpoint), secret=made.secret)


def _delivery(one: DeliveryState) -> WebhookDelivery:
    return WebhookDelivery(**{name: getattr(one, name) for name in WebhookDelivery.model_fields})
