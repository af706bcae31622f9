"""The Faust app of the schedule and of the reconciler: what runs when.

Every worker of it publishes what is due; the rest is for its leader. That none of it harms when two workers believe to
be the leader, or runs twice, is each part's own promise.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, timedelta
from functools import partial

import structlog

from infra.errors import DependencyDown
from infra.postgres import Database
from infra.settings import Settings
from producers.reconcile.reconciler import Reconciler
from producers.schedule.budgets import Budgets
from producers.schedule.periods import Periods
from producers.schedule.retention import Retention
from producers.schedule.taker import Taker
from streams.delivery.failed_events import FailedEvents
from streams.delivery.seal import Seal, SealedPublisher
from streams.jobs.dispatch import Dispatcher
from streams.jobs.faust_app import StageApp, create_app
from streams.jobs.stages import SCHEDULE

log = structlog.get_logger(__name__)

# The grain of every delay: shorter asks the database more often, longer publishes later.
_INTERVAL_S = 0.25
_SWEEP_S = 1.0
_BUDGETS_S = 15.0
# Nothing stands still much longer than its threshold, and the database is not asked all the time.
_LOOKS_IN_A_THRESHOLD = 10


def create(settings: Settings, database: Database | None = None) -> StageApp:
    """Make the app. It reads no topic, but joins its group all the same: that is how Faust elects a leader."""
    app = create_app(SCHEDULE, settings, database, leads=True)
    database, clock = app.database, app.database.clock
    publisher = SealedPublisher(app.publisher, Seal(database))
    taker = Taker(database, publisher, FailedEvents(database, clock), clock=clock)
    reconciler = Reconciler(
        database,
        publisher,
        clock,
        threshold=timedelta(seconds=settings.stall_threshold_s),
        expiry=timedelta(seconds=settings.reservation_expiry_s),
        attempt_time=timedelta(seconds=settings.generation_timeout_s + settings.stage_timeout_s),
    )
    job_days = settings.job_retention_days
    retention = Retention(
        database,
        clock,
        keep=timedelta(days=settings.event_retention_days),
        keep_jobs=None if job_days is None else timedelta(days=job_days),
        keep_hours=timedelta(days=settings.llm_hours_retention_days),
        keep_webhooks=timedelta(days=settings.webhook_retention_days),
    )
    duties = Duties()
    app.watch(lambda: taker.held, lambda: reconciler.held, duties.failing)
    dispatcher = Dispatcher(database, app.publisher, window=settings.dispatch_window)
    app.close_first(dispatcher.close)
    _publish_due(app, duties, taker)
    _dispatch(app, duties, dispatcher)
    _reconcile(app, duties, reconciler, every_s=settings.stall_threshold_s / _LOOKS_IN_A_THRESHOLD)
    _open_periods(app, duties, Periods(database, clock))
    _delete_old(app, duties, retention)
    _watch_budgets(app, duties, Budgets(database, clock))
    return app


class Duties:
    """The schedule's work runs when it is due, and its failures are noted.

    Everything else goes on meanwhile: a bug waits for a deploy that mends it.

    A failure is noted, and everything else goes on: a bug waits for a deploy that mends it.
    """

    def __init__(self) -> None:
        self._failing: dict[str, str] = {}

    def failing(self) -> str | None:
        """Say what fails, by the kind of its error; None if nothing does."""
        return ", ".join(f"{name} fails: {kind}" for name, kind in self._failing.items()) or None

    async def survive(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        """Leave failed work for its next time. The log and /readyz say so until it succeeds.

        An exception that leaves a timer would end the worker, and with it everything else that it does.
        """
        try:
            await work()
        except DependencyDown as error:
            log.warning("schedule.skipped", work=name, dependency=error.dependency, why=str(error))
        except Exception as error:
            if self._failing.get(name) != type(error).__name__:
                log.exception("schedule.failed", work=name)
            self._failing[name] = type(error).__name__
        else:
            self._failing.pop(name, None)


def _publish_due(app: StageApp, duties: Duties, taker: Taker) -> None:
    @app.timer(interval=_INTERVAL_S, name="schedule", traced=False)  # type: ignore[untyped-decorator]  # Faust's are
    async def publish_due() -> None:
        """Publish what is due."""
        await duties.survive("schedule", taker.tick)


def _dispatch(app: StageApp, duties: Duties, dispatcher: Dispatcher) -> None:
    @app.timer(interval=_INTERVAL_S, name="release", traced=False)  # type: ignore[untyped-decorator]
    async def release() -> None:
        """Release what may be released, should whoever ought to have done it be gone."""
        await duties.survive("dispatch", dispatcher.release)

    @app.timer(interval=_SWEEP_S, name="sweep", traced=False)  # type: ignore[untyped-decorator]
    async def sweep() -> None:
        """Find what the dispatcher was not told, and publish what is not known to be published."""
        await duties.survive("dispatch.sweep", partial(dispatcher.release, sweep=True))

    @app.crontab("37 * * * *", timezone=UTC, on_leader=True, traced=False)
    async def recount() -> None:
        """Mend counters that somebody has changed by hand."""
        await duties.survive("dispatch.recount", dispatcher.recount)


def _reconcile(app: StageApp, duties: Duties, reconciler: Reconciler, *, every_s: float) -> None:
    @app.timer(interval=every_s, on_leader=True, name="reconcile", traced=False)  # type: ignore[untyped-decorator]
    async def reconcile() -> None:
        """Send on what stands still, and settle reservations that nothing else would."""
        await duties.survive("reconcile", reconciler.tick)


def _open_periods(app: StageApp, duties: Duties, periods: Periods) -> None:
    @app.task  # type: ignore[untyped-decorator]
    async def open_period_at_start() -> None:
        """Catch up with a month that began while no schedule worker ran."""
        await duties.survive("periods.open_current", periods.open_current)

    @app.crontab("0 0 1 * *", timezone=UTC, on_leader=True, traced=False)
    async def open_period() -> None:
        """Open the month's quota period."""
        await duties.survive("periods.open_current", periods.open_current)

    @app.crontab("7 * * * *", timezone=UTC, on_leader=True, traced=False)
    async def open_period_late() -> None:
        """Catch up with a month that began while no leader was there."""
        await duties.survive("periods.open_current", periods.open_current)


def _delete_old(app: StageApp, duties: Duties, retention: Retention) -> None:
    @app.crontab("23 3 * * *", timezone=UTC, on_leader=True, traced=False)
    async def delete_old_events() -> None:
        """Delete what is past its retention: whole jobs first, since less is left to look at then."""
        await duties.survive("retention.delete_jobs", retention.delete_jobs)
        await duties.survive("retention.delete_old", retention.delete_old)
        await duties.survive("retention.delete_settled", retention.delete_settled)
        await duties.survive("retention.delete_hours", retention.delete_hours)
        await duties.survive("retention.delete_webhooks", retention.delete_webhooks)


def _watch_budgets(app: StageApp, duties: Duties, budgets: Budgets) -> None:
    @app.timer(interval=_BUDGETS_S, on_leader=True, name="budgets", traced=False)  # type: ignore[untyped-decorator]
    async def tell() -> None:
        """Tell who has spent how much of its month's budget."""
        await duties.survive("budgets", budgets.tell)
