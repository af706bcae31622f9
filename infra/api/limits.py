"""The API limits each organization's requests a minute, and says what is left."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from infra.api.problems import Problem
from infra.postgres import Database
from streams.jobs.intake_limits import CODE, take, too_fast

_TEXT: Final = {"schema": {"type": "string"}}
HEADERS: Final[Mapping[str, Any]] = {
    "headers": {
        "RateLimit-Policy": {"description": 'Requests that may be made, e.g. `"requests";q=600;w=60`.', **_TEXT},
        "RateLimit": {"description": 'What is left, e.g. `"requests";r=421;t=18`.', **_TEXT},
    }
}
"""How a route's OpenAPI entry describes them, for the status of its answer."""


@dataclass(frozen=True, slots=True)
class Limited:
    """The requests that an organization may make, in all API processes together."""

    database: Database

    async def take(self, organization_id: str) -> dict[str, str]:
        """Count one request; return the header fields of its answer.

        Raises:
            Problem: the organization has made as many as it may.
            DependencyDown: Postgres is away.
        """
        allowance = await take(self.database, organization_id)
        if not allowance.granted:
            raise Problem(429, CODE, str(too_fast(organization_id, allowance.per_minute)), headers=allowance.headers)
        return allowance.headers
