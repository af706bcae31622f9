"""This module has the facts about organizations. They travel among those about jobs, and stages of jobs ignore them.

`subject` and the entry's key are the organization's ID, and there is no `run`. As of a job's facts, the ID follows from
what the fact says.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeAlias
from uuid import NAMESPACE_URL, uuid5

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from infra.advice import explained
from infra.clock import Moment
from infra.errors import InvalidEvent
from streams.delivery.cloudevents import UNKNOWN_SOURCE, JsonMediaType
from streams.jobs.events import DEFAULT_SOURCE, OrganizationId

_Id: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=512)]
_Source: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=2_048)]

# As Postgres' bigint has it.
_MOST_MONEY: Final = 2**63 - 1


class Reached(BaseModel):
    """An organization has spent this part of its month's budget.

    Attributes:
        period: the UTC month, such as 2031-04.
        percent: 80 or 100.
        budget: in micro-units of the currency that all prices have.
        kind: `hard` stops runs at 100 %, `soft` none.
        spent: when the mark was found, in the same units.
    """

    model_config = ConfigDict(frozen=True)

    organization_id: OrganizationId
    period: Annotated[str, StringConstraints(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]
    percent: int = Field(ge=1, le=100)
    budget: int = Field(ge=0, le=_MOST_MONEY, description="In micro-units of the currency that all prices have.")
    kind: Literal["hard", "soft"]
    spent: int = Field(ge=0, le=_MOST_MONEY, description="In micro-units, when the mark was found.")


class BudgetReached(BaseModel):
    """An organization has spent a part of its month's budget."""

    model_config = ConfigDict(frozen=True)

    specversion: Literal["1.0"] = "1.0"
    id: _Id
    source: _Source = Field(default=DEFAULT_SOURCE, json_schema_extra={"default": UNKNOWN_SOURCE})
    subject: OrganizationId = Field(description="The organization's ID.")
    time: Moment = Field(description="When it was found; left out, when it was written.")
    datacontenttype: JsonMediaType = "application/json"
    type: Literal["teamfit.budget.reached.v1"] = "teamfit.budget.reached.v1"
    data: Reached

    @property
    def key(self) -> bytes:
        """The partition key: all facts about one organization share it."""
        return self.subject.encode()

    def encode(self) -> bytes:
        """Return the event as CloudEvents JSON, in UTF-8."""
        return self.model_dump_json(exclude_none=True).encode()


OrganizationFact: TypeAlias = BudgetReached
_TYPE: Final = str(BudgetReached.model_fields["type"].default)


def budget_reached(data: Reached, *, at: datetime) -> BudgetReached:
    """Build the fact. There is one for each organization, month, percentage and budget, by its ID."""
    name = f"teamfit:{data.organization_id}:{data.period}:budget:{data.budget}:{data.percent}"
    return BudgetReached(id=str(uuid5(NAMESPACE_URL, name)), subject=data.organization_id, time=at, data=data)


def is_organization_fact(attributes: Mapping[str, Any]) -> bool:
    """Return whether an event's attributes say that it is about an organization."""
    return attributes.get("type") == _TYPE


def organization_fact(attributes: Mapping[str, Any]) -> OrganizationFact:
    """Read a fact from its attributes.

    Raises:
        InvalidEvent: with a message that names each wrong field and what is wrong with it.
    """
    try:
        found = BudgetReached.model_validate(attributes)
    except ValidationError as error:
        raise InvalidEvent(explained(error)) from error
    if found.subject != found.data.organization_id:
        raise InvalidEvent(f"subject: {found.subject!r} must be the organization of data.organization_id")
    return found
