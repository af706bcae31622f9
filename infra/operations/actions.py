"""The log of actions is read here, page by page. What writes it stands in `infra.actions`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias
from uuid import UUID

import aiosql
from pydantic import BaseModel, ConfigDict, Field

from infra.actions import Face
from infra.clock import Moment
from infra.operations.cursors import read_cursor, write_cursor
from infra.operations.job_search import Term
from infra.postgres import Database, plan_for_values

_queries = aiosql.from_path(Path(__file__).with_name("actions.sql"), "asyncpg")

ActionOutcome: TypeAlias = Literal["done", "refused"]


class ActionFilter(BaseModel):
    """A choice of actions: those that fit every given field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    actor: Term | None = Field(default=None, description="Who acted.")
    action: Term | None = Field(default=None, description="As `job.cancel`; `job.` finds all that begin so.")
    target: Term | None = Field(default=None, description="To what, as `organization acme`.")
    face: Face | None = Field(default=None, description="From where.")
    outcome: ActionOutcome | None = None
    since: Moment | None = Field(default=None, description="At or after this time.")
    until: Moment | None = Field(default=None, description="Before this time.")


@dataclass(frozen=True, slots=True)
class LoggedAction:
    """An action as the log has it. `why` says why it was refused."""

    id: UUID
    at: datetime
    actor: str
    face: Face
    action: str
    target: str
    reason: str | None
    effects: Mapping[str, Any]
    outcome: ActionOutcome
    why: str | None


@dataclass(frozen=True, slots=True)
class ActionPage:
    """A page of actions, the newest first. `next` is the cursor of the page after it."""

    actions: Sequence[LoggedAction]
    next: str | None


async def find_actions(
    database: Database, chosen: ActionFilter, *, limit: int = 50, cursor: str | None = None
) -> ActionPage:
    """Return a page of the log.

    Raises:
        Refused: the cursor is none.
        DependencyDown: Postgres is away.
    """
    before_at, before_id = (None, None) if cursor is None else read_cursor(cursor)
    async with database.transaction() as connection:
        await plan_for_values(connection, by_index=True)
        rows = _queries.newest(
            connection, limit=limit + 1, before_at=before_at, before_id=before_id, **chosen.model_dump()
        )
        found = [LoggedAction(**row) async for row in rows]
    last = found[limit - 1] if len(found) > limit else None
    return ActionPage(found[:limit], write_cursor(last.at, last.id) if last else None)
