"""Failed events: finding them, looking at one, discarding them."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args
from uuid import UUID

import aiosql
import asyncpg
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from infra.actions import Act, acting
from infra.advice import require_known
from infra.clock import Clock, Moment
from infra.postgres import Database, plan_for_values
from infra.texts import STORABLE
from producers.replay.errors import UnknownFailedEvent
from streams.delivery.failed_events import discard
from streams.jobs.known_names import unknown_names
from streams.jobs.stages import STAGES

_queries = aiosql.from_path(Path(__file__).with_name("failed.sql"), "asyncpg")

State: TypeAlias = Literal["open", "replayed", "discarded"]
Reason: TypeAlias = Literal["given_up", "max_deliveries"]

Term: TypeAlias = Annotated[str, STORABLE]

_LOGGED = 100  # IDs in the log of actions; the events have the rest
_COUNTED = 10_000  # beyond it, a page says that there are more
_MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)
NOTICE = "Why there are none, where the filter names an organization that is not known."


class Filter(BaseModel):
    """A choice of failed events: those that fit every given field. Times are of an event's last failure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: Term | None = Field(default=None, description="The consumer group that failed it, e.g. `generation`.")
    error_type: Term | None = Field(default=None, description="The error's class, e.g. `Permanent`.")
    organization_id: Term | None = None
    job_id: UUID | None = None
    reason: Term | None = Field(default=None, description="Why it is a dead letter: `given_up`, `max_deliveries`.")
    trace_id: Term | None = Field(default=None, description="32 hexadecimal digits.")
    since: Moment | None = Field(default=None, description="Failed last at or after this time.")
    until: Moment | None = Field(default=None, description="Failed last before this time.")

    def require_known(self) -> None:
        """Pass if its stage and its reason are some that there are. Raises Refused, which names the nearest.

        Plans keep the filters that they were made with, so this is asked when one is used, not when it is read.
        """
        require_known("stage", self.stage, [stage.name for stage in STAGES])
        require_known("reason", self.reason, get_args(Reason))


class FailedEvent(BaseModel):
    """A failed event as a list shows it."""

    id: UUID
    state: State
    topic: str
    stage: str
    reason: str
    error_type: str
    error_message: str
    attempts: int = Field(description="Tries of the stage, or hand-overs by the broker, before it failed.")
    occurrences: int = Field(description="How often the same entry has failed.")
    first_failed_at: datetime
    last_failed_at: datetime
    event_type: str | None
    job_id: UUID | None
    run: int | None
    organization_id: str | None
    trace_id: str | None


class Content(BaseModel):
    """Bytes, as text where they are text, and in base64 where not. Both absent: there were none."""

    text: str | None = None
    base64: str | None = None
    size: int = 0

    @classmethod
    def of(cls, raw: bytes | None) -> "Content":
        """Return what the bytes are."""
        if raw is None:
            return cls()
        try:
            return cls(text=raw.decode(), size=len(raw))
        except UnicodeDecodeError:
            return cls(base64=base64.b64encode(raw).decode(), size=len(raw))


class FailedEventDetails(FailedEvent):
    """Everything about one failed event."""

    event_id: str | None
    traceback: str | None
    headers: dict[str, str | dict[str, str]] = Field(
        description='Those of the entry; {"base64": …} where they are not text.'
    )
    key: Content
    event: Content
    replayed_at: datetime | None
    discarded_at: datetime | None
    discarded_because: str | None
    discarded_by: str | None


class FailedEventPage(BaseModel):
    """Failed events, the latest first."""

    total: int = Field(description="How many the filter finds, on all pages, counted up to 10,000.")
    more: bool = Field(default=False, description="There are more than `total`.")
    failed_events: list[FailedEvent]
    next: str | None = Field(description="Give it as `after` for the next page; absent on the last one.")
    notice: str | None = Field(default=None, description=NOTICE)

    @property
    def counted(self) -> str:
        """Return the total in words, such as `more than 10,000`."""
        return f"more than {self.total:,}" if self.more else f"{self.total:,}"

    @property
    def has_one_of_several_stages(self) -> bool:
        """Return true if stages failed the same entry, each for itself."""
        seen = {(one.topic, one.job_id, one.error_type, one.error_message, one.stage) for one in self.failed_events}
        return len(seen) > len({one[:-1] for one in seen})


@dataclass(frozen=True, slots=True)
class OpenOnes:
    """The open failed events that a filter found, each as it was then."""

    ids: Sequence[UUID]
    occurrences: Sequence[int]


@dataclass(frozen=True, slots=True)
class FailedEvents:
    """The failed events in Postgres. Each method raises DependencyDown when it is away."""

    database: Database
    clock: Clock

    async def page(
        self, chosen: Filter, *, state: State | None = "open", limit: int = 50, after: "Place | None" = None
    ) -> FailedEventPage:
        """Return a page of those in a state, or in any. Raises Refused: the filter has an unknown stage or reason."""
        chosen.require_known()
        wanted = {"state": state, **chosen.model_dump()}
        async with self.database.transaction() as connection:
            await plan_for_values(connection, by_index=True)
            total = await _queries.count(connection, limit=_COUNTED + 1, **wanted)
            rows = _queries.page(
                connection,
                limit=limit + 1,
                before_time=after.last_failed_at if after else None,
                before_id=after.id if after else None,
                **wanted,
            )
            found = [FailedEvent(**row) async for row in rows]
        notice = None if found or after else await unknown_names(self.database, organization_id=chosen.organization_id)
        more = str(Place(found[limit - 1].last_failed_at, found[limit - 1].id)) if len(found) > limit else None
        return FailedEventPage(
            total=min(total, _COUNTED), more=total > _COUNTED, failed_events=found[:limit], next=more, notice=notice
        )

    async def one(self, failed_event_id: UUID) -> FailedEventDetails:
        """Return everything about one. Raises UnknownFailedEvent."""
        async with self.database.transaction() as connection:
            row = await _queries.one(connection, id=failed_event_id)
        if row is None:
            raise UnknownFailedEvent(failed_event_id)
        return _details(row)

    async def find_open(self, chosen: Filter) -> OpenOnes:
        """Return all open ones, however many, so that exactly these can be acted on later. Raises Refused as `page`."""
        chosen.require_known()
        async with self.database.transaction(for_values=True) as connection:
            row = await _queries.open_ones(connection, **chosen.model_dump())
        return OpenOnes(row["ids"], row["occurrences"])

    async def find_one(self, failed_event_id: UUID) -> OpenOnes:
        """Return one, if it is open. Raises UnknownFailedEvent."""
        found = await self.one(failed_event_id)
        return OpenOnes([found.id], [found.occurrences]) if found.state == "open" else OpenOnes([], [])

    async def discard(self, ones: OpenOnes, *, because: str, by: str) -> int:
        """Set events aside for good, without deleting anything; return how many.

        One that failed again since it was found, or was replayed or discarded by somebody else, is left as it is; so
        repeating the call changes nothing.
        """
        target = f"failed event {ones.ids[0]}" if len(ones.ids) == 1 else f"{len(ones.ids)} failed events"
        act = Act("failed.discard", target, because)
        async with acting(self.database, act) as connection:
            now = self.clock.now()
            discarded = await discard(connection, ones.ids, ones.occurrences, because=because, by=by, now=now)
            act.effects = {"discarded": len(discarded), "failed_events": [str(one) for one in ones.ids[:_LOGGED]]}
        return len(discarded)


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a sorted list, as text that a caller hands back unread."""

    last_failed_at: datetime
    id: UUID

    def __str__(self) -> str:
        """Return the text."""
        return f"{self.last_failed_at.isoformat()}_{self.id}"

    @classmethod
    def read(cls, text: str) -> "Place":
        """Return the place. Raises ValueError when the text is none."""
        moment, _, identity = text.partition("_")
        return cls(_MOMENT.validate_python(moment), UUID(identity))


def _details(row: asyncpg.Record) -> FailedEventDetails:
    columns = {name: value for name, value in row.items() if not name.endswith("_occurrences")}
    return FailedEventDetails(**{**columns, "key": Content.of(row["key"]), "event": Content.of(row["event"])})
