"""A group holds the failed events that have one cause."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import aiosql
import asyncpg
from pydantic import BaseModel, Field

from infra.postgres import Database, plan_for_values
from producers.replay.failed import NOTICE, Filter, State
from streams.jobs.known_names import unknown_names

_queries = aiosql.from_path(Path(__file__).with_name("failed_groups.sql"), "asyncpg")

LOOKED_AT: Final = 10_000
MOST_GROUPS: Final = 200
_HOURS: Final = 24


class FailedGroup(BaseModel):
    """Failed events of one stage and error whose messages say the same."""

    stage: str
    error_type: str
    shape: str = Field(description="The message with <id>, <text> and <n> in place of what differs between events.")
    count: int
    first_failed_at: datetime
    last_failed_at: datetime
    organizations: int
    some_organizations: list[str] = Field(description="Up to three of them.")
    latest: UUID = Field(description="The failed event that failed last.")
    by_hour: list[int] = Field(description="How many failed last in each of the past 24 hours, the oldest first.")


class FailedGroups(BaseModel):
    """The groups of the failed events that a filter finds, the largest first."""

    looked_at: int = Field(description="How many events were grouped: the latest, at most 10,000.")
    more: bool = Field(description="The filter finds more events than those.")
    total: int = Field(description="How many groups there are; the 200 largest are listed.")
    groups: list[FailedGroup]
    notice: str | None = Field(default=None, description=NOTICE)


async def read_groups(database: Database, chosen: Filter, *, state: State | None = "open") -> FailedGroups:
    """Return the groups of the latest failed events that a filter finds.

    Raises:
        Refused: the filter has an unknown stage or reason.
        DependencyDown: Postgres is away.
    """
    chosen.require_known()
    async with database.transaction() as connection:
        await plan_for_values(connection, by_index=True)
        rows = _queries.groups(
            connection,
            # One more than is told, to know whether there are more; it adds at most one to a group's count.
            limit=LOOKED_AT + 1,
            most=MOST_GROUPS,
            now=database.clock.now(),
            state=state,
            **chosen.model_dump(),
        )
        found = [row async for row in rows]
    looked_at = found[0]["looked_at"] if found else 0
    return FailedGroups(
        looked_at=min(looked_at, LOOKED_AT),
        more=looked_at > LOOKED_AT,
        total=found[0]["groups"] if found else 0,
        groups=[_group(row) for row in found],
        notice=None if found else await unknown_names(database, organization_id=chosen.organization_id),
    )


def _group(row: asyncpg.Record) -> FailedGroup:
    return FailedGroup(
        stage=row["stage"],
        error_type=row["error_type"],
        shape=row["shape"],
        count=row["events"],
        first_failed_at=row["first_failed_at"],
        last_failed_at=row["last_failed_at"],
        organizations=row["organizations"],
        some_organizations=(row["some_organizations"] or [])[:3],
        latest=row["latest_id"],
        by_hour=_by_hour(row["hours_ago"] or ()),
    )


def _by_hour(hours_ago: Sequence[int]) -> list[int]:
    # A clock that is behind Postgres' writers makes a failure of the future; it is one of this hour.
    counted = Counter(min(max(one, 0), _HOURS - 1) for one in hours_ago)
    return [counted[hour] for hour in reversed(range(_HOURS))]
