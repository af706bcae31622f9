"""Operators see what waits in the broker, and look at its entries."""

from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from infra.api.caller import Authenticated
from infra.api.problems import TOKEN, responses
from infra.auth import OPERATOR
from infra.errors import DependencyDown
from infra.identity import Tokens
from infra.operations.job_search import Term
from infra.operations.streams import MOST_ENTRIES, EntryPage, Lag, read_entries, read_lag
from producers.broker import Broker
from streams.redis.errors import TransportError

_LAG: Final = responses(*TOKEN, "broker_unavailable")
_PROBLEMS: Final = responses(*TOKEN, "invalid_request", "broker_unavailable")


class GroupLag(BaseModel):
    """A consumer group has this much left to do in a topic."""

    group: str
    consumers: int = Field(description="Workers that read.")
    pending: int = Field(description="Entries delivered and not yet acknowledged.")
    lag: int | None = Field(description="Entries never delivered; absent where the broker cannot tell.")
    oldest_pending_s: float | None = Field(description="How long ago the oldest pending one was written.")


class TopicLag(BaseModel):
    """A topic, with what each of its groups has left to do."""

    topic: str
    length: int = Field(description="Entries in its streams, those that are done and not trimmed yet included.")
    groups: list[GroupLag]
    unread: list[str] = Field(description="Keys of streams beside them that no worker reads.")


class StreamsLag(BaseModel):
    """The entries that wait in the broker."""

    topics: list[TopicLag]
    unread: list[str] = Field(description="A sentence for each part that no worker reads, with the fix.")

    @classmethod
    def of(cls, lag: Lag) -> "StreamsLag":
        """Return it as it is sent."""
        return cls(
            topics=[
                TopicLag(
                    topic=topic.topic,
                    length=topic.length,
                    groups=[
                        GroupLag(
                            group=one.group,
                            consumers=one.consumers,
                            pending=one.pending,
                            lag=one.lag,
                            oldest_pending_s=None if one.oldest_pending is None else one.oldest_pending.total_seconds(),
                        )
                        for one in topic.groups
                    ],
                    unread=list(topic.unread),
                )
                for topic in lag.topics
            ],
            unread=list(lag.unread),
        )


class EntriesQuery(BaseModel):
    """The query for a topic's entries."""

    model_config = ConfigDict(extra="forbid")

    group: Term | None = Field(default=None, description="Only what is pending in this group.")
    limit: int = Field(default=20, ge=1, le=MOST_ENTRIES)
    cursor: Term | None = Field(default=None, description="`next` of the page before.")


class StreamEntry(BaseModel):
    """An entry as it stands in its stream. The last three are of a pending list alone."""

    stream: str = Field(description="The key of its partition.")
    id: str
    written_at: datetime | None
    key: str | None
    event: str | None = Field(description="Its event as text, 4,000 characters of it.")
    size: int = Field(description="The event's bytes.")
    headers: dict[str, str] = Field(description="The first 50, 4,000 characters of each.")
    gone: bool = Field(description="It is pending, and was removed from the stream.")
    consumer: str | None = Field(description="Who it was given to.")
    idle_s: float | None = Field(description="How long ago that was, or that its lease was renewed.")
    deliveries: int | None = Field(description="How often it was given out.")


class StreamEntries(BaseModel):
    """Entries partition by partition, the oldest of each first."""

    entries: list[StreamEntry]
    next: str | None = Field(description="Give it as `cursor` for the next page; absent on the last one.")

    @classmethod
    def of(cls, page: EntryPage) -> "StreamEntries":
        """Return a page as it is sent."""
        plain = set(StreamEntry.model_fields) - {"idle_s", "headers"}
        return cls(
            entries=[
                StreamEntry(
                    **{name: getattr(one, name) for name in plain},
                    headers=dict(one.headers),
                    idle_s=None if one.idle is None else one.idle.total_seconds(),
                )
                for one in page.entries
            ],
            next=page.next,
        )


def create_router(broker: Broker, tokens: Tokens) -> APIRouter:
    """Return the routes that show what waits in the broker, and its entries."""
    router = APIRouter(prefix="/api/ops", tags=["operators"])
    operator = Authenticated(tokens, scope=OPERATOR)

    @router.get("/streams", responses=_LAG, dependencies=[Depends(operator)])
    async def show_streams() -> StreamsLag:
        """Return each topic with what its groups have left to do."""
        try:
            return StreamsLag.of(await read_lag(broker))
        except TransportError as error:
            raise DependencyDown("broker", str(error)) from error

    @router.get("/streams/{topic}", responses=_PROBLEMS, dependencies=[Depends(operator)])
    async def show_entries(topic: Term, query: Annotated[EntriesQuery, Query()]) -> StreamEntries:
        """List entries of a topic, or those that are pending in a group. Nothing is delivered or changed."""
        page = await read_entries(broker, topic, group=query.group, limit=query.limit, cursor=query.cursor)
        return StreamEntries.of(page)

    return router
