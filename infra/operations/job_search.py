"""Jobs are found by what is known of them, page by page.

A page costs the same however many jobs there are.

Every statement is planned for the values that it is given, and reads an index from one end: the jobs in the order of
time, those of a status, an organization or a team, those with an error. Of several conditions that no index has
together, statistics say how many jobs meet them: few are found by all their indices at once, many in the order of a
page (`job_statements.py`). Words of wishes have an index of their own, which finds all jobs that have them: good for
words that few have. Of words that more than 10,000 have, 10,000 of the jobs that the rest of the filter finds are
looked at for a page, which says so and has a link to go on. A count stops at 10,000 and says so too.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeAlias
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from consumers.projection.fold import Status, status_of
from infra.advice import require_known
from infra.clock import Moment
from infra.operations.cursors import read_cursor, write_cursor
from infra.operations.job_statements import MANY, PLAIN, WALK, statements_for, walk_for
from infra.postgres import Connection, Database, plan_for_values
from infra.texts import STORABLE
from streams.jobs.known_names import unknown_names
from streams.jobs.outcomes import ERROR_CODES

Order: TypeAlias = Literal["newest", "oldest"]
_Place: TypeAlias = tuple[datetime | None, UUID | None]

COUNTED: Final = 10_000
"""Up to this number a count is exact."""
_MOST: Final = 0.55
"""Of 20,000 jobs more than 10,000 have what this share of all has."""
_LARGEST_INT: Final = 2**31 - 1

Term: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=1_000), STORABLE]
TermOrEmpty: TypeAlias = Annotated[str, StringConstraints(max_length=1_000), STORABLE]


class JobFilter(BaseModel):
    """A choice of jobs: those that fit every given field. Times are of a job's request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Status | None = Field(default=None, description="The status of the newest run.")
    organization_id: Term | None = None
    team_id: Term | None = None
    since: Moment | None = Field(default=None, description="Asked for at or after this time.")
    until: Moment | None = Field(default=None, description="Asked for before this time.")
    error_code: Term | None = Field(default=None, description="Why the newest run ended, e.g. `llm_refusal`.")
    run: int | None = Field(default=None, ge=0, le=_LARGEST_INT, description="The number of the newest run.")
    trace_id: str | None = Field(default=None, pattern="^[0-9a-f]{32}$", description="32 hexadecimal digits.")
    words: Term | None = Field(
        default=None,
        description='Words of the requirements, all of them; "of a phrase" in quotation marks, `or`, and `-without`.',
    )


@dataclass(frozen=True, slots=True)
class FoundJob:
    """A job as a list shows it. Of its requirements there are 200 characters."""

    job_id: UUID
    organization_id: str | None
    team_id: str | None
    status: Status
    run: int
    error_code: str | None
    error_message: str | None
    requirements: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs in their order.

    Attributes:
        next: the cursor of the page after, if there is one.
        looked_at: how many jobs were looked at for the words, where that is why the page ends; a page after it goes on.
        notice: why there are none, where the filter names an organization or a team that is not known.
    """

    jobs: Sequence[FoundJob]
    next: str | None
    looked_at: int | None = None
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """A number that is exact up to a bound.

    Attributes:
        more: there are more than that.
        partly: not all was looked at, so that there may be more.
    """

    number: int
    more: bool = False
    partly: bool = False

    @classmethod
    def of(cls, counted: int, *, bound: int = COUNTED) -> "Count":
        """Return the count of what was counted up to one beyond the bound."""
        return cls(min(counted, bound), counted > bound)

    def __str__(self) -> str:
        """Return it in words, such as `more than 10,000`."""
        how = "more than " if self.more else "at least " if self.partly else ""
        return f"{how}{self.number:,}"


async def list_jobs(
    database: Database, chosen: JobFilter, *, order: Order = "newest", limit: int = 50, cursor: str | None = None
) -> tuple[JobPage, Count]:
    """Return a page as `find_jobs` does, and how many jobs there are.

    A page without a job has a notice where the filter names what is not known.
    """
    page, count = await _listed(database, chosen, order=order, limit=limit, cursor=cursor)
    if page.jobs or cursor is not None:
        return page, count
    return replace(page, notice=await notice_of(database, chosen)), count


async def notice_of(database: Database, chosen: JobFilter) -> str | None:
    """Return what a filter names that is not known, if anything."""
    return await unknown_names(database, organization_id=chosen.organization_id, team_id=chosen.team_id)


async def _listed(
    database: Database, chosen: JobFilter, *, order: Order, limit: int, cursor: str | None
) -> tuple[JobPage, Count]:
    """Find a page and its count side by side, since each may look at many jobs; unless both would look at the same."""
    said_by = await _said_by(database, chosen)
    if _is_walked(said_by) and cursor is None and not _is_of_words(chosen):
        async with database.transaction() as connection:
            return await _walked(connection, chosen, order=order, limit=limit)
    page, count = await asyncio.gather(
        _find(database, chosen, said_by, order=order, limit=limit, cursor=cursor), _count(database, chosen, said_by)
    )
    return page, count


async def find_jobs(
    database: Database, chosen: JobFilter, *, order: Order = "newest", limit: int = 50, cursor: str | None = None
) -> JobPage:
    """Return a page of the jobs that a filter finds.

    Raises:
        Refused: the cursor is none, or the error code unknown (`invalid_request`).
        DependencyDown: Postgres is away.
    """
    said_by = await _said_by(database, chosen)
    return await _find(database, chosen, said_by, order=order, limit=limit, cursor=cursor)


async def count_jobs(database: Database, chosen: JobFilter) -> Count:
    """Return how many jobs a filter finds, exactly up to 10,000."""
    return await _count(database, chosen, await _said_by(database, chosen))


async def _find(
    database: Database, chosen: JobFilter, said_by: int | None, *, order: Order, limit: int, cursor: str | None
) -> JobPage:
    place = (None, None) if cursor is None else read_cursor(cursor)
    async with database.transaction() as connection:
        if not _is_walked(said_by):
            values = await values_of(connection, chosen)
            queries = await statements_for(connection, values)
            return _page(await _found(queries, connection, order, limit, place, values), limit)
        # Mostly a part of them has enough.
        page, _ = await _walked(connection, chosen, order=order, limit=limit, place=place, most=COUNTED // 4)
        if page.next is None or page.looked_at is None:
            return page
        page, _ = await _walked(connection, chosen, order=order, limit=limit, place=place)
        return page


async def _count(database: Database, chosen: JobFilter, said_by: int | None) -> Count:
    if said_by is not None and _is_of_words(chosen):
        return Count.of(said_by)
    async with database.transaction() as connection:
        if _is_walked(said_by):
            _, count = await _walked(connection, chosen, order="newest", limit=1)
            return count
        values = await values_of(connection, chosen)
        queries = await statements_for(connection, values)
        return Count.of(int(await queries.count(connection, limit=COUNTED + 1, **values)))


async def values_of(connection: Connection, chosen: JobFilter) -> dict[str, Any]:
    """Return the values of a filter for its statements, and have these planned for them.

    Raises:
        Refused: its error code is none of ours, and none that a job of other days has (`invalid_request`).
    """
    await plan_for_values(connection, by_index=True)
    code = chosen.error_code
    if code is not None and code not in ERROR_CODES and not await PLAIN.has_error_code(connection, error_code=code):
        require_known("error_code", code, ERROR_CODES)
    values = chosen.model_dump(exclude={"trace_id", "words"})
    values["job_ids"] = None
    if chosen.trace_id is not None:
        values["job_ids"] = (await PLAIN.of_trace(connection, trace_id=chosen.trace_id))["ids"]
    if chosen.words is not None:
        values["words"] = chosen.words
    return values


async def _said_by(database: Database, chosen: JobFilter) -> int | None:
    """Return how many jobs have the words, up to one more than 10,000; 0 without words.

    None: only words are given that a wish must not have. With other conditions it is enough that many seem to have
    them: what is said of these jobs is then said of those that were looked at.
    """
    if chosen.words is None:
        return 0
    asked = {"words": chosen.words, "limit": COUNTED + 1}
    async with database.transaction() as connection:
        await plan_for_values(connection, by_index=True)
        expected = await _seem_to_have(connection, chosen.words)
        if expected > MANY and not _is_of_words(chosen):
            return COUNTED + 1
        if expected > max(COUNTED, _MOST * await WALK.kept(connection)):
            some: int | None = await WALK.saying_of_some(connection, looked_at=2 * COUNTED, **asked)
            if some is not None and some > COUNTED:
                return some
        counted: int | None = await WALK.saying(connection, **asked)
    return counted


async def _seem_to_have(connection: Connection, words: str) -> int:
    """Return how many jobs seem to have some words."""
    (plan,) = await WALK.plan_of_saying(connection, words=words)
    return int(plan["Plan"]["Plan Rows"])


def _is_walked(said_by: int | None) -> bool:
    return said_by is None or said_by > COUNTED


def _is_of_words(chosen: JobFilter) -> bool:
    """Return true if a filter has words and nothing else."""
    return chosen.words is not None and chosen == JobFilter(words=chosen.words)


async def _walked(
    connection: Connection,
    chosen: JobFilter,
    *,
    order: Order,
    limit: int,
    place: _Place = (None, None),
    most: int = COUNTED,
) -> tuple[JobPage, Count]:
    """Return a page of those with the words among the next that the rest of a filter finds, and their count."""
    values = await values_of(connection, chosen)
    queries = await walk_for(connection, values)
    walk = queries.newest if order == "newest" else queries.oldest
    seen = await walk(connection, limit=limit + 1, looked_at=most, before_at=place[0], before_id=place[1], **values)
    those = {name: None for name in values if name != "words"} | {"job_ids": seen["first"]}
    page = _page(await _found(PLAIN, connection, order, limit, (None, None), those), limit)
    there_may_be_more = seen["looked_at"] == most
    if page.next is None and there_may_be_more:
        page = JobPage(page.jobs, write_cursor(seen["last_at"], seen["last_id"]), looked_at=most)
    return page, Count(seen["found"], partly=there_may_be_more)


async def _found(
    queries: Any,  # noqa: ANN401 - aiosql's queries have no types
    connection: Connection,
    order: Order,
    limit: int,
    place: _Place,
    values: Mapping[str, Any],
) -> list[FoundJob]:
    """Return one job more than a page has, if there are so many."""
    statement = queries.newest if order == "newest" else queries.oldest
    rows = statement(connection, limit=limit + 1, before_at=place[0], before_id=place[1], **values)
    return [FoundJob(**{**row, "status": status_of(row["status"])}) async for row in rows]


def _page(found: Sequence[FoundJob], limit: int) -> JobPage:
    last = found[limit - 1] if len(found) > limit else None
    return JobPage(found[:limit], write_cursor(last.created_at, last.job_id) if last else None)
