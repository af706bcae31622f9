"""An organization's plan limits how fast it asks and how many runs wait.

Both are kept in Postgres, where the requests go anyway: one statement takes from a bucket, in all API processes and in
the quota stage alike, and no limit holds or falls with another server. If Postgres is away, nothing is taken in at all:
503 by HTTP, and the stage holds. If a process dies after it took, one request is lost from the bucket, which fills
within a minute; what the quota stage takes is in the transaction of its decisions, so a repeat takes nothing again.

By HTTP each request counts, repeats too. What comes straight into the stream counts when the quota stage decides it:
it is told from the intake's own by its source. Replays are the operator's, and count nowhere.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import Final

import aiosql

from infra.errors import Refused
from infra.postgres import Connection, Database
from streams.jobs.events import DEFAULT_SOURCE, JobId, JobRequested

_queries = aiosql.from_path(Path(__file__).with_name("intake_limits.sql"), "asyncpg")

CODE: Final = "too_many_requests"
_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Allowance:
    """The bucket of an organization, after a request was taken from it or refused.

    Attributes:
        per_minute: how many requests the bucket holds, and gets in a minute.
        remaining: how many are in it.
        seconds: until there is another one; where there is one, until the bucket is full.
    """

    per_minute: int
    granted: bool
    remaining: int
    seconds: int

    @property
    def headers(self) -> dict[str, str]:
        """The fields of draft-ietf-httpapi-ratelimit-headers, and when to come again if nothing was taken."""
        fields = {
            "RateLimit-Policy": f'"requests";q={self.per_minute};w=60',
            "RateLimit": f'"requests";r={self.remaining};t={self.seconds}',
        }
        return fields if self.granted else {**fields, "Retry-After": str(self.seconds)}


async def take(database: Database, organization_id: str) -> Allowance:
    """Take one request from an organization's bucket, if one is there. Raises DependencyDown."""
    async with database.connection() as connection:
        row = await _queries.take_one(connection, organization_id=organization_id)
    return Allowance(row["per_minute"], row["granted"] == 1, row["remaining"], max(1, ceil(row["wait"])))


def too_fast(organization_id: str, per_minute: int) -> Refused:
    """Return the refusal of a request that comes too soon."""
    return Refused(
        CODE,
        f"organization {organization_id} may make {per_minute} requests a minute, and has made them; ask again later, "
        "or upgrade the plan",
        retry_after=_MINUTE,
    )


def too_many_waiting(organization_id: str) -> Refused:
    """Return the refusal of a request when as many runs wait as may."""
    return Refused(
        CODE,
        f"organization {organization_id} has as many jobs waiting as its plan allows; ask again when some have begun, "
        "or upgrade the plan",
        retry_after=_MINUTE,
    )


async def beyond(connection: Connection, requests: Sequence[JobRequested]) -> Mapping[tuple[JobId, int], Refused]:
    """Return which first runs are beyond a limit, and why. Of each organization it is the later ones.

    Args:
        connection: in the transaction that decides them. The counters of their organizations are locked, so that
            no other transaction admits a run of theirs meanwhile.
        requests: undecided, each once, in the stream's order.
    """
    first = [one for one in requests if one.run == 1]
    if not first:
        return {}
    straight = Counter(_owner(one) for one in first if one.source != DEFAULT_SOURCE)
    rows = await _rows(connection, straight, {_owner(one) for one in first})
    refused = {}
    granted = {whose: int(row["granted"]) for whose, row in rows.items()}
    room = {whose: int(row["room"]) for whose, row in rows.items()}
    for one in first:
        whose = _owner(one)
        if one.source != DEFAULT_SOURCE:
            granted[whose] -= 1
            if granted[whose] < 0:
                refused[one.job_id, one.run] = too_fast(whose, rows[whose]["per_minute"])
                continue
        room[whose] -= 1
        if room[whose] < 0:
            refused[one.job_id, one.run] = too_many_waiting(whose)
    return refused


async def _rows(
    connection: Connection, wanted: Mapping[str, int], organization_ids: Collection[str]
) -> Mapping[str, Mapping[str, int]]:
    # In one order, as everybody who locks several.
    ordered = sorted(organization_ids)
    rows = _queries.take_each(connection, organization_ids=ordered, wanted=[wanted.get(whose, 0) for whose in ordered])
    return {row["organization_id"]: row async for row in rows}


def _owner(request: JobRequested) -> str:
    return request.data.organization_id
