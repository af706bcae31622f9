"""The Faust app of the webhooks stage."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from consumers.webhooks.handlers import Facts
from consumers.webhooks.receivers import Receivers
from consumers.webhooks.sender import Sender
from infra.errors import DependencyDown
from infra.postgres import Database
from infra.settings import Settings
from streams.delivery.failed_events import FailedEvents
from streams.jobs.faust_app import StageApp, create_app
from streams.jobs.stages import WEBHOOKS
from streams.jobs.topics import JOB_EVENTS, read_fact

log = structlog.get_logger(__name__)

_CATCH_UP_S = 30.0
# A webhook is sent so much later, and the events of many jobs are read together.
_LINGER = timedelta(milliseconds=100)


def create(settings: Settings, database: Database | None = None) -> StageApp:
    """Make the stage's app, on this pool, or on one of its own."""
    app = create_app(WEBHOOKS, settings, database)
    clock = app.database.clock
    sender = Sender(
        app.database,
        clock,
        Receivers(allow_private=settings.webhook_allow_private),
        FailedEvents(app.database, clock),
        brake=app.brake,
        concurrency=settings.webhook_concurrency,
    )
    facts = Facts(app.database, clock, settings, recorded=sender.poke)
    app.feed(
        JOB_EVENTS, app.stage(read_fact, facts.handle, is_last=True), concurrency=settings.batch_size, linger=_LINGER
    )
    app.watch(lambda: sender.held)
    app.close_first(sender.close)
    _send(app, sender)
    _catch_up(app, facts.catch_up)
    return app


def _send(app: StageApp, sender: Sender) -> None:
    @app.task  # type: ignore[untyped-decorator]  # Faust's are
    async def send() -> None:
        """Begin to send what is due."""
        sender.start()


def _catch_up(app: StageApp, catch_up: Callable[[], Awaitable[object]]) -> None:
    @app.timer(interval=_CATCH_UP_S, name="webhooks-catch-up", traced=False)  # type: ignore[untyped-decorator]
    async def look() -> None:
        """Find facts that the broker has lost. What fails is tried again; an exception would end the worker."""
        try:
            await catch_up()
        except DependencyDown as error:
            log.warning("webhooks.put_off", dependency=error.dependency, why=str(error))
        except Exception:
            log.exception("webhooks.not_compared")
