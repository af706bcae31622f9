"""Webhook endpoints are listed with their deliveries; an operator adds, changes, tries and removes them."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.routing import Route

from consumers.webhooks.deliveries import State
from consumers.webhooks.messages import EVENT_TYPES
from infra.console.desk import Desk
from infra.console.visits import Visit
from infra.operations import webhooks
from infra.texts import STORABLE

_LISTED: Final = 100
_DAY_H: Final = 24

_Text = Annotated[str, STORABLE]


class _Wanted(BaseModel):
    """The filter of the list, and its page."""

    model_config = ConfigDict(extra="forbid")

    organization_id: _Text | None = None
    cursor: str | None = None


class _Deliveries(BaseModel):
    """The deliveries of an endpoint to show."""

    model_config = ConfigDict(extra="forbid")

    state: State | None = None
    cursor: str | None = None


class _New(BaseModel):
    """An endpoint to add; the types of events that it wants are the chosen ones."""

    model_config = ConfigDict(extra="forbid")

    organization_id: _Text
    url: _Text = Field(max_length=2_000)


class _Keep(BaseModel):
    """For how many hours the secret before signs too."""

    model_config = ConfigDict(extra="forbid")

    hours: float = Field(default=_DAY_H, ge=0, le=30 * _DAY_H)


class _Because(BaseModel):
    """Why an endpoint is disabled."""

    model_config = ConfigDict(extra="forbid")

    because: _Text = Field(min_length=1, max_length=500)


def routes(desk: Desk) -> list[Route]:
    """Return the routes."""

    async def every(visit: Visit) -> Mapping[str, Any]:
        wanted = _Wanted.model_validate(visit.fields)
        page = await webhooks.list_endpoints(desk.database, wanted.organization_id, limit=_LISTED, cursor=wanted.cursor)
        return {"page": page, "types": EVENT_TYPES}

    async def one(visit: Visit) -> Mapping[str, Any]:
        wanted = _Deliveries.model_validate(visit.fields)
        endpoint_id = _id(visit)
        return {
            "endpoint": await webhooks.show_endpoint(desk.database, endpoint_id),
            "page": await webhooks.list_deliveries(
                desk.database, endpoint_id, state=wanted.state, limit=_LISTED, cursor=wanted.cursor
            ),
            "states": get_args(State),
            "types": EVENT_TYPES,
        }

    return [
        *_secrets(desk),
        *_changes(desk),
        *desk.live_page("/webhooks/{endpoint_id:uuid}", "webhook.html", one),
        *desk.live_page("/webhooks", "webhooks.html", every),
    ]


def _secrets(desk: Desk) -> list[Route]:
    """Return the routes whose answer shows a secret, this once: it is on no page that can be loaded again."""

    async def add(visit: Visit) -> Response:
        own = {name: value for name, value in visit.fields.items() if name != "chosen"}
        new = _New.model_validate(own)
        made = await webhooks.add_endpoint(
            desk.database, desk.settings, new.organization_id, new.url, visit.chosen or EVENT_TYPES
        )
        return desk.show(visit, "webhook_secret.html", made=made)

    async def rotate(visit: Visit) -> Response:
        keep = timedelta(hours=_Keep.model_validate(visit.fields).hours)
        made = await webhooks.rotate_secret(desk.database, _id(visit), keep=keep)
        return desk.show(visit, "webhook_secret.html", made=made)

    return [
        desk.action("/webhooks/add", add),
        desk.action("/webhooks/{endpoint_id:uuid}/rotate", rotate),
    ]


def _changes(desk: Desk) -> list[Route]:
    async def disable(visit: Visit) -> Response:
        because = _Because.model_validate(visit.fields).because
        await webhooks.disable_endpoint(desk.database, _id(visit), because)
        return _back(visit)

    async def enable(visit: Visit) -> Response:
        await webhooks.enable_endpoint(desk.database, _id(visit))
        return _back(visit)

    async def test(visit: Visit) -> Response:
        """Have a test sent, once; the list of deliveries says how it was answered."""
        await webhooks.send_test(desk.database, _id(visit))
        return _back(visit)

    async def remove(visit: Visit) -> Response:
        await webhooks.remove_endpoint(desk.database, _id(visit))
        return desk.go(visit, "/webhooks")

    def _back(visit: Visit) -> Response:
        return desk.go(visit, f"/webhooks/{_id(visit)}")

    views = {"disable": disable, "enable": enable, "test": test, "remove": remove}
    return [desk.action(f"/webhooks/{{endpoint_id:uuid}}/{name}", view) for name, view in views.items()]


def _id(visit: Visit) -> UUID:
    return UUID(visit.path("endpoint_id"))
