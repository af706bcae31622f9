"""The routes of plans share these, whether their items are jobs or failed events."""

from datetime import timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from infra.api.problems import BODY, TOKEN, responses
from infra.clock import Moment

# A request must not outlive the time that proxies give it; the caller asks again until the plan has ended.
APPLY_AT_MOST: Final = timedelta(seconds=10)
_LARGEST_PAGE: Final = 500
_LAST_POSITION: Final = 2**31 - 1
_READ: Final = (*TOKEN, "invalid_request", "database_unavailable")
_WRITE: Final = (*TOKEN, *BODY, "too_busy", "database_unavailable")
READ: Final = responses(*_READ)
MAKE: Final = responses(*_WRITE)
PLAN: Final = responses(*_READ, "plan_not_found")
APPLY: Final = responses(*_WRITE, "plan_not_found", "plan_busy", "plan_changed", "plan_aborted")


class PlansQuery(BaseModel):
    """The query for the list of plans."""

    model_config = ConfigDict(extra="forbid")

    before: Moment | None = Field(default=None, description="Made before this time.")
    limit: int = Field(default=50, ge=1, le=_LARGEST_PAGE)


class ItemsQuery(BaseModel):
    """The query for a plan: the page of its items."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(default=0, ge=0, le=_LAST_POSITION, description="The `position` where the page before ended.")
    limit: int = Field(default=100, ge=0, le=_LARGEST_PAGE)
