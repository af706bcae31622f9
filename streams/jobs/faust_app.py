"""This manages the tables of apps that have none."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import faust
from faust.tables import TableManager

from infra import telemetry
from infra.errors import InvalidSetting
from infra.postgres import Database
from infra.settings import Settings
from streams.delivery.agent import agent_of
from streams.delivery.brake import Brake
from streams.delivery.deliveries import Delivery, Record
from streams.delivery.failed_events import FailedEvents
from streams.delivery.interfaces import RetrySchedule
from streams.delivery.policy import RetryPolicy
from streams.delivery.publisher import FaustPublisher
from streams.delivery.scheduled import ScheduledRetries
from streams.delivery.seal import Seal
from streams.delivery.settle import Settler, no_consequences
from streams.delivery.stage import Stage
from streams.delivery.standstill import BUG
from streams.delivery.worker_health import serve_health
from streams.jobs.controls import Controls
from streams.jobs.gauges import Gauges
from streams.jobs.stages import CONSUMER_GROUPS
from streams.jobs.watch import Watch, Watched, brake_of, is_stage
from streams.redis.address import BrokerAddress
from streams.redis.backlog import Look, TopicBacklog
from streams.redis.errors import InvalidSettings, UnsupportedFeature
from streams.redis.transport import Transport


class NoTables(TableManager):
    """It starts at once. Faust's own sleeps for a second first, so that tables can be added."""

    async def on_start(self) -> None:
        """Let the conductor go on: it waits until the tables are known."""
        await self._update_channels()
        await self.recovery.start()


# What a stage may wait for: the dependencies of `DependencyDown`, and a timer whose own dependency is away.
_POSTGRES, _BROKER, _LLM, _STAGE, _TIMER = "postgres", "broker", "llm", "stage", "timer"

_KAFKA = ("kafka://", "aiokafka://")

_FAUST_PORT = 6066  # Faust wants a port in its settings, also for the web server that it does not start


E = TypeVar("E")

# In the check of ownership and in the handler, a delivery may wait for the batch before its own, and then for its own.
_BATCHES_IN_A_TRY: Final = 4


class StageApp(faust.App):
    """The Faust app of one consumer group, which knows the stages that its agents feed.

    Attributes:
        settings: of this process.
        database: the pool that all of its handlers share.
        publisher: writes to topics.
        stages: those that agents feed.
        concurrency: how many deliveries of a topic they take at once, at most.
        brake: what operators want of the stages; all of an app's share it.
        watcher: obeys them; None in an app that another one's does for, and in one that is no worker.
        endpoints: the LLM endpoints that its stages call, as the fleet names them.
        unreached: says of each of them that no call from here reaches why that is so.
        beside: apps that run in the same process, and whose health this one's web server tells too.
    """

    settings: Settings
    database: Database
    publisher: FaustPublisher
    stages: list[Stage[Any]]
    concurrency: int = 0
    watched: list[Callable[[], str | None]]
    resources: list[Callable[[], Awaitable[None]]]
    publishing: list[Callable[[], Awaitable[None]]]
    brake: Brake
    watcher: Watch | None
    endpoints: Sequence[str] = ()
    unreached: Callable[[], Mapping[str, str]]
    beside: list["StageApp"]

    def close_at_last(self, *close: Callable[[], Awaitable[None]]) -> None:
        """Have these called, in order, when no agent runs any more.

        Faust's `on_before_shutdown` is too early: it is sent when the drain is over, also if agents are still busy, and
        what they do would then fail as if a dependency had gone away.
        """
        self.resources += close

    def close_first(self, *close: Callable[[], Awaitable[None]]) -> None:
        """Have these called before all others: they still use what those close."""
        self.resources[:0] = close

    def close_before_producer(self, *close: Callable[[], Awaitable[None]]) -> None:
        """Have these called when the drain is over: they publish, and the producer stops next.

        Agents that are still busy may use them afterwards.
        """
        self.publishing += close

    def stage(
        self,
        decode: Callable[[Delivery], E],
        handle: Callable[[E, Delivery], Awaitable[Sequence[Record]]],
        give_up: Callable[[E, Delivery, Exception], Awaitable[Sequence[Record]]] = no_consequences,
        *,
        is_last: bool = False,
        policy: RetryPolicy | None = None,
        retries: RetrySchedule | None = None,
        timeout: timedelta | None = None,
        asks: Mapping[str, Callable[[], Awaitable[None]]] | None = None,
    ) -> Stage[E]:
        """Return the stage wrapper around these handlers, as the settings would have it.

        Args:
            decode: see `Stage`.
            handle: see `Stage`.
            give_up: see `Settler`.
            is_last: see `Stage`.
            policy: which failure leads where; the settings' retries if None.
            retries: keeps what is tried again later; the schedule if None.
            timeout: longest one try may take. If None: the time of four batches.
            asks: see `Stage`.
        """
        return Stage(
            decode=decode,
            handle=handle,
            settler=Settler(
                group=self.conf.id,
                publisher=self.publisher,
                retries=retries or ScheduledRetries(self.database, self.database.clock),
                failed_events=FailedEvents(self.database, self.database.clock),
                give_up=give_up,
            ),
            opened=Seal(self.database).opened,
            brake=self.brake,
            is_last=is_last,
            asks=asks,
            policy=policy or RetryPolicy.of(self.settings),
            timeout=timeout or timedelta(seconds=_BATCHES_IN_A_TRY * self.settings.stage_timeout_s),
        )

    def feed(self, topic: str, stage: Stage[Any], *, concurrency: int, linger: timedelta = timedelta(0)) -> None:
        """Have an agent take the topic's deliveries through a stage.

        Args:
            topic: of the deliveries.
            stage: that they go through.
            concurrency: how many at once.
            linger: how long new entries may wait for company, for a stage whose work no caller waits for.
        """
        if stage not in self.stages:
            self.stages.append(stage)
        self.concurrency = max(self.concurrency, concurrency)
        source = self.topic(topic, key_type=bytes, value_type=bytes, config=_topic_config(self, topic, linger))
        self.agent(source, name=f"{stage.group}:{topic}")(agent_of(stage, at_once=concurrency))

    def watch(self, *held: Callable[[], str | None]) -> None:
        """Have /readyz ask these too. Each says why something besides the stages stands still, or None."""
        self.watched += held

    def on_controls(self, hook: Callable[[Controls], None]) -> None:
        """Have this called after each look at what operators want."""
        if self.watcher is not None:
            self.watcher.hooks.append(hook)

    def tell_also(self, app: "StageApp") -> None:
        """Serve the health of another app of this process, whose own web server stays off."""
        app.boot_strategy.enable_web = False
        self.beside.append(app)
        if self.watcher is not None and app.watcher is not None:
            self.watcher.adopt(app.watcher)
            app.watcher = None

    async def on_start(self) -> None:
        """Look at what operators want before the first entry is read."""
        await super().on_start()
        if self.watcher is not None:
            self.watcher.start()

    def _create_directories(self) -> None:
        """Make no folders for Faust's tables: there are none, and the working directory may be read-only."""

    async def on_stop(self) -> None:
        """Have held stages give back waiting deliveries, so that only current work is drained."""
        for stage in self.stages:
            stage.waits.stop()
        await super().on_stop()
        for close in self.publishing:
            await close()

    async def on_shutdown(self) -> None:
        """Close what the agents have used; they are Faust's children and have stopped."""
        await super().on_shutdown()
        for stage in self.stages:
            await stage.empty_hands.close()
        for close in self.resources:
            await close()
        if self.watcher is not None:
            await self.watcher.close()

    def problems(self) -> list[str]:
        """Say why work stands still, a sentence each; empty when all is well. Sends no question to a server."""
        held = [f"{stage.group} is held: {stage.held}" for stage in self.stages if stage.held is not None]
        held += [why for ask in self.watched if (why := ask()) is not None]
        health = getattr(self.transport, "health", list)  # Kafka's transport does not tell
        broker = [one.replace("broker URL", "BROKER_URL") for one in health()]
        return [*held, *broker, *(problem for app in self.beside for problem in app.problems())]

    def pauses(self) -> list[str]:
        """Say which stages operators have paused, a sentence each: that is no fault."""
        own = self.brake.orders.paused
        said = [] if own is None else [f"{self.conf.id} is paused by {own}"]
        return [*said, *(sentence for app in self.beside for sentence in app.pauses())]

    def tell_held(self) -> None:
        """Bring the gauge that says which stage stands still, and why, up to date."""
        reasons = {stage.waits_for for stage in self.stages}
        if any(ask() is not None for ask in self.watched):
            reasons.add(_TIMER)
        if getattr(self.transport, "health", list)():
            reasons.add(_BROKER)
        for reason in (_POSTGRES, _BROKER, _LLM, _STAGE, BUG, _TIMER):
            telemetry.STAGE_HELD.labels(self.conf.id, reason).set(reason in reasons)
        for app in self.beside:
            app.tell_held()

    async def backlogs(self) -> Sequence[TopicBacklog]:
        """Ask the broker what waits in each topic.

        Raises:
            TransportError: it is away.
            UnsupportedFeature: it is Kafka, whose own tools tell it.
        """
        if not isinstance(self.transport, Transport):
            raise UnsupportedFeature("only Redis Streams are asked for their backlog; Kafka has tools of its own")
        return await self.transport.backlogs(CONSUMER_GROUPS)

    async def look_at(self, topic: str, *, group: str | None, limit: int, after: str | None) -> Look:
        """Show entries of a topic, or of its pending list, without touching them.

        Raises:
            InvalidPlace: `after` is not where a look has ended.
            TransportError: the broker is away.
            UnsupportedFeature: it is Kafka, whose own tools show it.
        """
        if not isinstance(self.transport, Transport):
            raise UnsupportedFeature("only entries of Redis Streams are shown; Kafka has tools of its own")
        return await self.transport.look_at(topic, group=group, limit=limit, after=after)


def check_broker_url(url: str) -> None:
    """Read the broker's URL, which Faust does only when it is first needed.

    Raises:
        InvalidSetting: it cannot be meant; the message says which part. Faust itself reads the URLs of Kafka.
    """
    if url.lower().startswith(_KAFKA):
        if not urlsplit(url.replace(";", ",")).netloc.strip(",:"):
            raise InvalidSetting("BROKER_URL", "cannot be used: it has no host; write kafka://HOST:9092")
        return
    try:
        BrokerAddress.parse(url)
    except InvalidSettings as error:
        raise InvalidSetting("BROKER_URL", f"cannot be used: {str(error).removeprefix('broker URL: ')}") from error


def create_app(group: str, settings: Settings, database: Database | None = None, *, leads: bool = False) -> StageApp:
    """Return a consumer group's Faust app, with its own database and publisher. It connects to nothing yet.

    The app's ID is the group's name; the broker is the settings' URL.

    With `worker_port` set, its web server answers /healthz, /readyz and /metrics there.

    Args:
        group: the consumer group.
        settings: of this process.
        database: the pool of a process that runs several apps, which closes it; the app's own if None.
        leads: whether one of its workers runs timers for all; electing it costs the broker some commands a second.

    Raises:
        InvalidSetting: the broker's URL cannot be meant.
    """
    check_broker_url(settings.broker_url)
    app = StageApp(
        group,
        broker=settings.broker_url,
        topic_partitions=settings.topic_partitions,
        key_serializer="raw",
        value_serializer="raw",
        consumer_auto_offset_reset="earliest",
        web_port=settings.worker_port or _FAUST_PORT,
        web_bind=settings.worker_host,
        topic_disable_leader=not leads,
        TableManager=NoTables,
    )
    app.settings = settings
    app.database = database or Database(settings.database_url, size=settings.database_pool_size, keeps_plans=True)
    app.publisher = FaustPublisher(app)
    app.unreached = dict
    app.stages, app.resources, app.publishing, app.watched, app.beside = [], [], [], [], []
    app.brake = brake_of(group)
    app.watcher = _watcher(app) if is_stage(group) else None
    # The `faust` command turns the web server on by default, and two workers of one machine would want the same port.
    app.boot_strategy.enable_web = settings.worker_port is not None
    gauges = Gauges(settings, app.backlogs)
    app.close_at_last(gauges.close)
    if database is None:
        app.close_at_last(app.database.close)

    async def refresh() -> None:
        app.tell_held()
        await gauges.refresh()

    serve_health(app, app.problems, app.pauses, refresh)
    return app


def _watcher(app: StageApp) -> Watch:
    watch = Watch(app.database, "worker")
    stage = Watched(
        app.conf.id,
        app.brake,
        concurrency=lambda: app.concurrency,
        held=lambda: next((one.held for one in app.stages if one.held is not None), None),
        endpoints=lambda: app.endpoints,
        unreached=lambda: dict(app.unreached()),
    )
    watch.stages.append(stage)
    return watch


def _topic_config(app: faust.App, topic: str, linger: timedelta) -> dict[str, Any]:
    # Redis trims a stream of what its groups have acknowledged, so it must know those that have not started yet.
    # Kafka keeps by time, and refuses configuration that it does not know.
    on_kafka = app.conf.broker[0].scheme == "kafka"
    return {} if on_kafka else {"groups": list(CONSUMER_GROUPS[topic]), "linger": linger}
