"""A cursor is a place in a list as a text, handed back unread."""

import base64
from datetime import datetime
from typing import Annotated, Final, TypeAlias
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from infra.clock import Moment
from infra.errors import Refused
from infra.texts import STORABLE

_MOMENT: Final[TypeAdapter[datetime]] = TypeAdapter(Moment)
_TEXT: Final[TypeAdapter[str]] = TypeAdapter(Annotated[str, STORABLE])

DeliveryPlace: TypeAlias = tuple[datetime, str]
EndpointPlace: TypeAlias = tuple[datetime, UUID, str]


def write_cursor(at: datetime, *rest: object) -> str:
    """Return a place in an order of time as a text. Only the last of what follows the time may hold any character."""
    text = "_".join((at.isoformat(), *map(str, rest)))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> tuple[datetime, UUID]:
    """Return the place that a cursor names: a time and an ID. Raises Refused (`invalid_request`)."""
    at, identity = _parts(cursor, 2)
    return _moment(at), _uuid(identity)


def read_delivery_cursor(cursor: str) -> DeliveryPlace:
    """Return a time and an event's ID. Raises Refused (`invalid_request`)."""
    at, event_id = _parts(cursor, 2)
    return _moment(at), event_id


def read_endpoint_cursor(cursor: str) -> EndpointPlace:
    """Return a time, an endpoint's ID and an organization. Raises Refused (`invalid_request`)."""
    at, identity, organization_id = _parts(cursor, 3)
    return _moment(at), _uuid(identity), organization_id


def _parts(cursor: str, count: int) -> list[str]:
    try:
        text = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)).decode()
        parts = _TEXT.validate_python(text).split("_", count - 1)
    except (ValueError, ValidationError) as error:
        raise _none() from error
    if len(parts) != count:
        raise _none()
    return parts


def _moment(text: str) -> datetime:
    try:
        return _MOMENT.validate_python(text)
    except (ValueError, OverflowError) as error:
        raise _none() from error


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise _none() from error


def _none() -> Refused:
    return Refused("invalid_request", "cursor: is not the one of a page; leave it out to begin")
