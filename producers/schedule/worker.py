"""The Faust app of the schedule and of the reconciler: what runs when.

Every worker of it publishes what is due; the rest is for its leader. That none of it harms when two workers believe to
be the leader, or runs twice, is each part's own promise.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, timedelta

import structlog

from infra.errors import DependencyDown
from infra.postgres import Database
from infra.settings import settings
from producers.reconcile.reconciler import Reconciler
from producers.schedule.periods import Periods
from producers.schedule.retention import Retention
from producers.schedule.taker import Taker
from streams.delivery.failed_events import FailedEvents
from streams.delivery.publisher import FaustPublisher
from streams.delivery.seal import Seal, SealedPublisher
from streams.jobs.faust_app import create_app

log = structlog.get_logger(__name__)

# The grain of every delay: shorter asks the database more often, longer publishes later.
_INTERVAL_S = 0.25

_settings = settings()
_database = Database(_settings.database_url, size=_settings.database_pool_size)
_clock = _database.clock

# It reads no topic, but joins its group all the same: that is how Faust elects a leader.
app = create_app("schedule", _settings, leads=True)
app.close_at_last(_database.close)

_publisher = SealedPublisher(FaustPublisher(app), Seal(_database))
taker = Taker(_database, _publisher, FailedEvents(_database, _clock), clock=_clock)
reconciler = Reconciler(
    _database,
    _publisher,
    _clock,
    threshold=timedelta(seconds=_settings.stall_threshold_s),
    expiry=timedelta(seconds=_settings.reservation_expiry_s),
    patience=timedelta(seconds=_settings.generation_timeout_s + _settings.stage_timeout_s),
)
periods = Periods(_database, _clock)
_job_days = _settings.job_retention_days
retention = Retention(
    _database,
    _clock,
    keep=timedelta(days=_settings.event_retention_days),
    keep_jobs=None if _job_days is None else timedelta(days=_job_days),
)
# What fails, by the kind of its error: a bug that a deploy must mend. Everything else goes on.
failing: dict[str, str] = {}
app.watch(
    lambda: taker.held,
    lambda: reconciler.held,
    lambda: ", ".join(f"{name} fails: {kind}" for name, kind in failing.items()) or None,
)


@app.timer(interval=_INTERVAL_S, name="schedule", traced=False)  # type: ignore[untyped-decorator]  # Faust's are
async def publish_due() -> None:
    """Publish what is due."""
    await _survive("schedule", taker.tick)


# Ten looks in a threshold: nothing stands still much longer than that, and the database is not asked all the time.
@app.timer(interval=_settings.stall_threshold_s / 10, on_leader=True, name="reconcile", traced=False)  # type: ignore[untyped-decorator]
async def reconcile() -> None:
    """Send on what stands still, and settle reservations that nothing else would."""
    await _survive("reconcile", reconciler.tick)


@app.task  # type: ignore[untyped-decorator]
async def open_period_at_start() -> None:
    """Catch up with a month that began while nobody was there."""
    await _survive("periods.open_current", periods.open_current)


@app.crontab("0 0 1 * *", timezone=UTC, on_leader=True, traced=False)
async def open_period() -> None:
    """Open the month's quota period."""
    await _survive("periods.open_current", periods.open_current)


@app.crontab("7 * * * *", timezone=UTC, on_leader=True, traced=False)
async def open_period_late() -> None:
    """Catch up with a month that began while no leader was there."""
    await _survive("periods.open_current", periods.open_current)


@app.crontab("23 3 * * *", timezone=UTC, on_leader=True, traced=False)
async def delete_old_events() -> None:
    """Delete what is past its retention: whole jobs first, since less is left to look at then."""
    await _survive("retention.delete_jobs", retention.delete_jobs)
    await _survive("retention.delete_old", retention.delete_old)
    await _survive("retention.delete_settled", retention.delete_settled)


async def _survive(name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Leave the work for its next time when it fails; say so in the log and on /readyz until it succeeds.

    An exception that leaves a timer would end the worker, and with it everything else that it does.
    """
    try:
        await work()
    except DependencyDown as error:
        log.warning("schedule.skipped", work=name, dependency=error.dependency, why=str(error))
    except Exception as error:
        if failing.get(name) != type(error).__name__:
            log.exception("schedule.failed", work=name)
        failing[name] = type(error).__name__
    else:
        failing.pop(name, None)
