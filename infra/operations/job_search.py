"""Jobs are found by what is known of them, page by page.

A page costs the same however many jobs there are.

Every statement is planned for the values that it is given, and reads an index from one end: the jobs in the order of
time, those of an organization or a team, those with an error. Words of wishes have an index of their own. A count stops
at 10,000 and says so.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias
from uuid import UUID

import aiosql
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from consumers.projection.fold import CELERYS_WORDS, Status, status_of
from infra.clock import Moment
from infra.errors import Refused
from infra.postgres import Connection, Database
from infra.texts import STORABLE

Order: TypeAlias = Literal["newest", "oldest"]

COUNTED: Final = 10_000
"""Up to this number a count is exact."""
_LARGEST_INT: Final = 2**31 - 1
_MOMENT: Final[TypeAdapter[datetime]] = TypeAdapter(Moment)

Term: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=1_000), STORABLE]
TermOrEmpty: TypeAlias = Annotated[str, StringConstraints(max_length=1_000), STORABLE]


@dataclass(frozen=True, slots=True)
class FilteredStatements:
    """A file's statements for a filter of jobs, with words to look for and without."""

    plain: Any
    saying: Any

    @classmethod
    def of(cls, name: str) -> "FilteredStatements":
        """Load a file of this folder."""
        return cls(_load(name, saying=False), _load(name, saying=True))


def _load(name: str, *, saying: bool) -> Any:  # noqa: ANN401 - aiosql's queries have no types
    folder = Path(__file__).parent
    _, _, chosen = (folder / "job_filter.sql").read_text(encoding="utf-8").partition("\n")
    join = ""
    if saying:
        join = "JOIN job_words AS said ON job.job_id = said.job_id::uuid"
        chosen = f"{chosen.rstrip()}\n    AND said.words @@ websearch_to_tsquery('simple', :words)"
    statements = (folder / name).read_text(encoding="utf-8")
    _, _, statements = statements.partition("\n\n")
    if not saying:
        statements = statements.replace(", words)", ")")
    return aiosql.from_str(statements.replace("/* saying */", join).replace("/* chosen */", chosen.rstrip()), "asyncpg")


_statements = FilteredStatements.of("job_search.sql")


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
    """Jobs in their order. `next` is the cursor of the page after, if there is one."""

    jobs: Sequence[FoundJob]
    next: str | None


@dataclass(frozen=True, slots=True)
class Count:
    """A number that is exact up to a bound; `more`: there are more than that."""

    number: int
    more: bool = False

    @classmethod
    def of(cls, counted: int, *, bound: int = COUNTED) -> "Count":
        """Return the count of what was counted up to one beyond the bound."""
        return cls(min(counted, bound), counted > bound)

    def __str__(self) -> str:
        """Return it in words, such as `more than 10,000`."""
        return f"more than {self.number:,}" if self.more else f"{self.number:,}"


async def find_jobs(
    database: Database, chosen: JobFilter, *, order: Order = "newest", limit: int = 50, cursor: str | None = None
) -> JobPage:
    """Return a page of the jobs that a filter finds.

    Raises:
        Refused: the cursor is none (`invalid_request`).
        DependencyDown: Postgres is away.
    """
    before_at, before_id = (None, None) if cursor is None else read_cursor(cursor)
    async with database.transaction() as connection:
        queries, values = await prepared(connection, chosen)
        statement = queries.newest if order == "newest" else queries.oldest
        rows = statement(connection, limit=limit + 1, before_at=before_at, before_id=before_id, **values)
        found = [FoundJob(**{**row, "status": status_of(row["status"])}) async for row in rows]
    last = found[limit - 1] if len(found) > limit else None
    return JobPage(found[:limit], write_cursor(last.created_at, last.job_id) if last else None)


async def count_jobs(database: Database, chosen: JobFilter) -> Count:
    """Return how many jobs a filter finds, exactly up to 10,000."""
    async with database.transaction() as connection:
        queries, values = await prepared(connection, chosen)
        return Count.of(int(await queries.count(connection, limit=COUNTED + 1, **values)))


async def prepared(
    connection: Connection, chosen: JobFilter, statements: FilteredStatements = _statements
) -> tuple[Any, Mapping[str, Any]]:
    """Return the statements for a filter and its values, and have them planned for these."""
    await _statements.plain.plan_for_these_values(connection)
    values = chosen.model_dump(exclude={"status", "trace_id", "words"})
    values["statuses"] = None if chosen.status is None else words_of(chosen.status)
    values["job_ids"] = None
    if chosen.trace_id is not None:
        values["job_ids"] = (await _statements.plain.of_trace(connection, trace_id=chosen.trace_id))["ids"]
    if chosen.words is None:
        return statements.plain, values
    return statements.saying, {**values, "words": chosen.words}


def words_of(status: Status) -> list[str]:
    """Return the words by which rows say a status, those of the Celery days included."""
    words = [status, *(word for word, meant in CELERYS_WORDS.items() if meant == status)]
    return [spelt for word in words for spelt in (word, word.upper())]


def write_cursor(at: datetime, identity: UUID) -> str:
    """Return a place in an order of time as a text."""
    return base64.urlsafe_b64encode(f"{at.isoformat()}_{identity}".encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> tuple[datetime, UUID]:
    """Return the place that a cursor names. Raises Refused (`invalid_request`)."""
    try:
        text = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)).decode()
        moment, _, identity = text.partition("_")
        return _MOMENT.validate_python(moment), UUID(identity)
    except (ValueError, OverflowError) as error:
        raise Refused("invalid_request", "cursor: is not the one of a page; leave it out to begin") from error
