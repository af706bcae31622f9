"""A connection to the broker serves processes that only publish.

It is a Faust app without agents, so it works on any broker.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import faust
import structlog

from infra.errors import DependencyDown, RefusesWrites, TeamfitError
from infra.settings import Settings
from streams.delivery.deliveries import Record
from streams.delivery.publisher import BrokerDown, FaustPublisher
from streams.jobs.faust_app import StageApp, check_broker_url, create_app
from streams.jobs.topics import JOB_REQUESTS
from streams.redis.backlog import Look, TopicBacklog
from streams.redis.errors import BrokerUnavailable, WritesRefused
from streams.redis.transport import Transport as RedisTransport

log = structlog.get_logger(__name__)

_CLOSE_S = 2.0


class Broker:
    """Publishes records. Implements `streams.delivery.stage.Publisher`.

    The connection opens when it is first needed, so a process starts, and says that it is not ready, while the broker
    is away.

    Args:
        name: the Faust app's ID, in log lines and metrics.
        timeout: longest a publish may take; after it, whether the records were written is unknown.

    Raises:
        InvalidSetting: the broker's URL cannot be meant.
    """

    def __init__(self, settings: Settings, *, name: str, timeout: timedelta = timedelta(seconds=3)) -> None:
        check_broker_url(settings.broker_url)
        self._settings = settings
        self._name = name
        self._timeout_s = timeout.total_seconds()
        self._app: StageApp | None = None
        self._starting = asyncio.Lock()

    async def publish(self, records: Sequence[Record]) -> None:
        """Return when the broker has confirmed all records.

        Raises:
            BrokerDown: it may not have them all; `maybe_written` says whether it may have some.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await FaustPublisher(await self._started()).publish(records)
        except TimeoutError as error:
            raise BrokerDown(f"the broker did not answer in {self._timeout_s:g} s", maybe_written=True) from error
        except TeamfitError:
            raise
        except Exception as error:
            # Whatever else the client makes of an odd answer says nothing against the request: it is sent once more.
            message = f"the broker answers oddly: {type(error).__name__}: {error}; check BROKER_URL"
            raise BrokerDown(message, maybe_written=True) from error

    async def probe(self) -> None:
        """Ask the broker whether it takes requests now. Nothing is written.

        On Kafka this asks only for a sign of life.

        Raises:
            RefusesWrites: it answers, but is full, read-only, or short of replicas or disk.
            BrokerDown: it does not answer.
        """
        try:
            await self._probe(await self._started())
        except DependencyDown:
            raise
        except Exception as error:
            message = f"the broker is away: {type(error).__name__}: {error}; check BROKER_URL"
            raise BrokerDown(message, maybe_written=False) from error

    async def backlogs(self) -> Sequence[TopicBacklog]:
        """Ask the broker what waits in each topic.

        Raises:
            BrokerDown: it is away.
            TransportError: it does not tell, or is Kafka, whose own tools do.
        """
        app = await self._started()
        try:
            return await app.backlogs()
        except BrokerUnavailable as error:
            raise BrokerDown(f"the broker is away: {error}; check BROKER_URL", maybe_written=False) from error

    async def look_at(self, topic: str, *, group: str | None, limit: int, after: str | None) -> Look:
        """Show entries of a topic, or of its pending list, without touching them.

        Raises:
            InvalidPlace: `after` is not where a look has ended.
            BrokerDown: it is away.
            TransportError: it does not tell, or is Kafka, whose own tools do.
        """
        app = await self._started()
        try:
            return await app.look_at(topic, group=group, limit=limit, after=after)
        except BrokerUnavailable as error:
            raise BrokerDown(f"the broker is away: {error}; check BROKER_URL", maybe_written=False) from error

    async def close(self) -> None:
        """Write what is left and close the connection, in at most two seconds."""
        app, self._app = self._app, None
        if app is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_S):
                await app.producer.stop()
        except TimeoutError:
            log.warning("broker.close_timed_out", name=self._name)

    async def _started(self) -> StageApp:
        async with self._starting:
            if self._app is not None:
                return self._app
            app = create_app(self._name, self._settings)
            try:
                await app.maybe_start_producer()
            except Exception as error:
                # A service that failed to start stays marked as started, so the next caller begins with a new app.
                await app.producer.stop()
                raise BrokerDown(f"the broker is away: {error}; check BROKER_URL", maybe_written=False) from error
            self._app = app
            return app

    async def _probe(self, app: faust.App) -> None:
        transport = app.producer_transport
        if isinstance(transport, RedisTransport):
            try:
                await transport.probe(JOB_REQUESTS)
            except WritesRefused as error:
                raise RefusesWrites("broker", f"takes no writes: {error.code}") from error
            return
        # aiokafka has no ping; it answers this by asking a broker, and says whether one replied.
        if not await app.producer._producer.client.force_metadata_update():  # type: ignore[attr-defined] # noqa: SLF001
            raise DependencyDown("broker", "no Kafka broker answered")
