"""This module reads the gauges of /metrics at each scrape. They count what waits, stands still, failed, or is late.

Each process tells those of the whole fleet, so that one is left to tell them whichever dies. Reading them is cheap, is
done at most once in five seconds, and is never waited for longer than a scrape can: when a source does not answer in
time, `teamfit_source_up` says so, its other gauges are absent, and the look at it goes on in the background.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import aiosql
import asyncpg
import structlog
from prometheus_client import Gauge

from infra import telemetry
from infra.looks import SharedLook
from infra.postgres import Database
from infra.settings import Settings
from streams.jobs.events import TERMINAL_TYPES, JobRequested
from streams.jobs.stages import CONSUMER_GROUPS, STAGES
from streams.redis.backlog import TopicBacklog

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("gauges.sql"), "asyncpg")

# Prometheus scrapes every 15 s or more; several that ask at once share one look.
_FRESH_S = 5.0
# Prometheus gives a scrape ten seconds by default, an impatient set-up less.
_LONGEST_LOOK_S = 2.0
_ENDPOINT_STATES = ("working", "failing", "disabled")

# As in `infra.telemetry`: an alert sees a count rise only if it has seen it before.
for _topic in CONSUMER_GROUPS:
    telemetry.FORGED_HEADERS.labels(_topic)
for _type in (str(JobRequested.model_fields["type"].default), *TERMINAL_TYPES):
    telemetry.REEMITTED.labels(_type)

Readings: TypeAlias = Mapping[Gauge, Mapping[tuple[str, ...], float]]
"""What gauges are to show, by their labels. What is not in it is absent."""


@dataclass
class _Source:
    """What is read from one place."""

    name: str
    look: Callable[[], Awaitable[Readings]]
    _shared: SharedLook[None] = field(init=False)
    _shown: set[Gauge] = field(default_factory=set, init=False)
    _up: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        self._shared = SharedLook(self._look, fresh_s=_FRESH_S, longest_s=_LONGEST_LOOK_S)

    async def refresh(self) -> None:
        """Look again, unless that was done just now. Raises nothing."""
        try:
            await self._shared.latest()
        except TimeoutError:
            self._show({}, up=False)

    async def close(self) -> None:
        """Give up a look under way, and tell nothing any more."""
        await self._shared.close()
        self._show({}, up=False)

    async def _look(self) -> None:
        try:
            readings = await self.look()
        except Exception as error:  # noqa: BLE001 - a page of numbers must not fail because some of them are unknown
            if self._up:
                log.warning("gauges.unknown", source=self.name, why=f"{type(error).__name__}: {error}")
            self._show({}, up=False)
        else:
            self._show(readings, up=True)

    def _show(self, readings: Readings, *, up: bool) -> None:
        for gauge in self._shown:
            gauge.clear()
        self._shown, self._up = set(readings), up
        for gauge, values in readings.items():
            for labels, value in values.items():
                gauge.labels(*labels).set(value)
        telemetry.SOURCE_UP.labels(self.name).set(up)


class Gauges:
    """The fleet's gauges, as this process reads them."""

    def __init__(self, settings: Settings, backlogs: Callable[[], Awaitable[Sequence[TopicBacklog]]]) -> None:
        """Connect to nothing yet.

        Args:
            settings: where Postgres is; the first scrape opens one connection, apart from those that the work needs.
            backlogs: asks the broker. Kafka is not asked: it has exporters of its own.
        """
        self._database = Database(settings.database_url, size=1)
        self._backlogs = backlogs
        self._sources = [_Source("postgres", self._look_at_postgres)]
        if not settings.broker_url.startswith("kafka:"):
            self._sources.append(_Source("broker", self._look_at_broker))

    async def refresh(self) -> None:
        """Update the gauges whose sources answer, within about two seconds."""
        await asyncio.gather(*(source.refresh() for source in self._sources))

    async def close(self) -> None:
        """Close what was opened."""
        await asyncio.gather(*(source.close() for source in self._sources))
        await self._database.close()

    async def _look_at_postgres(self) -> Readings:
        async with self._database.transaction() as connection:
            failed = [row async for row in _queries.failed_events_open(connection)]
            gates = [row async for row in _queries.gates(connection)]
            jobs = [row async for row in _queries.oldest_live_jobs(connection)]
            paused = [row async for row in _queries.paused(connection)]
            due = [row async for row in _queries.scheduled_due(connection)]
            webhooks = [row async for row in _queries.webhooks(connection)]
        return {
            telemetry.FAILED_EVENTS_OPEN: _column(failed, "events", of=[stage.name for stage in STAGES if stage.reads]),
            telemetry.GATE_CLOSED_UNTIL: _column(gates, "closed_until_s", of=()),
            telemetry.OLDEST_LIVE_JOB: _column(jobs, "age_s", of=("pending", "processing")),
            telemetry.PAUSED: _paused(paused),
            telemetry.SCHEDULED_DUE: _column(due, "events", of=CONSUMER_GROUPS),
            telemetry.SCHEDULED_OVERDUE: _column(due, "overdue_s", of=CONSUMER_GROUPS),
            telemetry.WEBHOOK_ENDPOINTS: _column(webhooks, "endpoints", of=_ENDPOINT_STATES),
            telemetry.WEBHOOKS_OVERDUE: _column(webhooks, "overdue_s", of=_ENDPOINT_STATES),
        }

    async def _look_at_broker(self) -> Readings:
        topics = await self._backlogs()
        groups = [((topic.topic, group.group), group) for topic in topics for group in topic.groups]
        return {
            telemetry.TOPIC_ENTRIES: {(topic.topic,): topic.length for topic in topics},
            telemetry.GROUP_LAG: {labels: group.lag for labels, group in groups if group.lag is not None},
            telemetry.GROUP_PENDING: {labels: group.pending for labels, group in groups},
            telemetry.GROUP_OLDEST_PENDING: {
                labels: group.oldest_pending.total_seconds() if group.oldest_pending else 0.0
                for labels, group in groups
            },
            telemetry.GROUP_CONSUMERS: {labels: group.consumers for labels, group in groups},
        }


def _paused(rows: Iterable[asyncpg.Record]) -> dict[tuple[str, ...], float]:
    """Return 1 for what is paused, by stage and scope, and 0 for what is not."""
    stages = [*(stage.name for stage in STAGES if stage.reads), "intake"]
    known = {(stage, scope): 0.0 for stage in stages for scope in ("all", "some")}
    return known | {(row["stage"], row["scope"]): 1.0 for row in rows}


def _column(rows: Iterable[asyncpg.Record], name: str, *, of: Iterable[str]) -> dict[tuple[str, ...], float]:
    """Return a column by the first one, which is the label; what has no row of those named is zero."""
    return {(label,): 0.0 for label in of} | {(row[0],): row[name] for row in rows}
