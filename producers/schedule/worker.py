"""The Faust app of the schedule and of the reconciler: what runs when.

Every worker of it publishes what is due; the rest is for its leader. That none of it harms when two workers believe to
be the leader, or runs twice, is each part's own promise.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, timedelta
from functools import partial

import structlog

from infra.clock import Clock
from infra.errors import DependencyDown
from infra.postgres import Database
from infra.settings import Settings
from producers.reconcile.reconciler import Reconciler
from producers.schedule.budgets import Budgets
from producers.schedule.counts import Counts
from producers.schedule.periodic import PERIODIC, Periodic, Tasks, Work
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
_OFTEN_S = 15.0
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
    app.close_before_producer(dispatcher.close)
    _publish_due(app, duties, taker)
    _dispatch(app, duties, dispatcher)
    tasks = Tasks(
        database,
        duties.survive,
        {
            "reconcile": {"reconcile": reconciler.tick},
            "dispatch.recount": {"dispatch.recount": dispatcher.recount},
            **_own_works(database, clock, retention),
        },
    )
    look_s = settings.stall_threshold_s / _LOOKS_IN_A_THRESHOLD
    for one in PERIODIC:
        _run_at_its_times(app, tasks, one, look_s if one.name == "reconcile" else _OFTEN_S)
    _run_what_is_wanted(app, duties, tasks)
    _open_periods(app, tasks)
    return app


def _own_works(database: Database, clock: Clock, retention: Retention) -> Mapping[str, Mapping[str, Work]]:
    """Return what periodic tasks do, part by part, but for the reconciler's and the dispatcher's."""
    counts = Counts(database, clock)
    return {
        "counts": {"counts": counts.count},
        "counts.again": {"counts.again": counts.count_again},
        "budgets": {"budgets": Budgets(database, clock).tell},
        "periods": {"periods.open_current": Periods(database, clock).open_current},
        # Whole jobs first, since less is left to look at then.
        "retention": {
            "retention.delete_jobs": retention.delete_jobs,
            "retention.delete_old": retention.delete_old,
            "retention.delete_settled": retention.delete_settled,
            "retention.delete_hours": retention.delete_hours,
            "retention.delete_webhooks": retention.delete_webhooks,
        },
    }


class Duties:
    """The schedule's work runs when it is due, and its failures are noted.

    Everything else goes on meanwhile: a bug waits for a deploy that mends it.
    """

    def __init__(self) -> None:
        self._failing: dict[str, str] = {}

    def failing(self) -> str | None:
        """Say what fails, by the kind of its error; None if nothing does."""
        return ", ".join(f"{name} fails: {kind}" for name, kind in self._failing.items()) or None

    async def survive(self, name: str, work: Callable[[], Awaitable[object]]) -> str | None:
        """Leave failed work for its next time. The log and /readyz say so until it succeeds.

        Returns the kind of its error, if it failed.

        An exception that leaves a timer would end the worker, and with it everything else that it does.
        """
        try:
            await work()
        except DependencyDown as error:
            log.warning("schedule.skipped", work=name, dependency=error.dependency, why=str(error))
            return type(error).__name__
        except Exception as error:
            if self._failing.get(name) != type(error).__name__:
                log.exception("schedule.failed", work=name)
            self._failing[name] = type(error).__name__
            return type(error).__name__
        self._failing.pop(name, None)
        return None


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


def _run_at_its_times(app: StageApp, tasks: Tasks, one: Periodic, every_s: float) -> None:
    async def run() -> None:
        """Run a periodic task."""
        await tasks.run(one.name)

    if one.crontab is not None:
        app.crontab(one.crontab, timezone=UTC, on_leader=True, traced=False)(run)
    else:
        app.timer(interval=every_s, on_leader=True, name=one.name, traced=False)(run)


def _run_what_is_wanted(app: StageApp, duties: Duties, tasks: Tasks) -> None:
    @app.timer(interval=_SWEEP_S, on_leader=True, name="wanted", traced=False)  # type: ignore[untyped-decorator]
    async def run_wanted() -> None:
        """Run the periodic tasks that operators want now."""
        await duties.survive("wanted", tasks.run_wanted)


def _open_periods(app: StageApp, tasks: Tasks) -> None:
    """Open the month's quota period when it begins, beside the task that opens it an hour later at most."""

    @app.task  # type: ignore[untyped-decorator]
    async def open_period_at_start() -> None:
        """Catch up with a month that began while no schedule worker ran."""
        await tasks.run("periods")

    @app.crontab("0 0 1 * *", timezone=UTC, on_leader=True, traced=False)
    async def open_period() -> None:
        """Open the month's quota period."""
        await tasks.run("periods")
