"""The Faust app of the projection, and which check comes before it."""

from collections.abc import Sequence
from datetime import timedelta

from consumers.projection.handlers import Projection, decode
from infra.postgres import Database
from infra.settings import settings
from streams.delivery.batching import Batcher
from streams.delivery.deliveries import Record
from streams.delivery.failed_events import FailedEvents
from streams.delivery.policy import RetryPolicy
from streams.delivery.publisher import FaustPublisher
from streams.delivery.scheduled import ScheduledRetries
from streams.delivery.seal import Seal
from streams.delivery.stage import Stage
from streams.jobs.events import JobCancelRequested, JobEvent
from streams.jobs.faust_app import attach, create_app
from streams.jobs.ownership import Ownership
from streams.jobs.topics import JOB_EVENTS, JOB_REQUESTS, PROJECTION

_settings = settings()
_database = Database(_settings.database_url, size=_settings.database_pool_size)
_projection = Projection(_database)

_ownership = Ownership(_database, timeout=timedelta(seconds=_settings.stage_timeout_s))
_batches: Batcher[JobEvent, Sequence[Record]] = Batcher(
    _projection.project, max_size=_settings.batch_size, timeout_s=_settings.stage_timeout_s
)


async def _project(event: JobEvent) -> Sequence[Record]:
    evidence = await _ownership.check(event)
    # The cancellation of a job that nobody has asked for is kept by quota; here it would make a job of it.
    if isinstance(event, JobCancelRequested) and evidence.owner is None:
        return ()
    return await _batches.submit(event)


app = create_app(PROJECTION, _settings)
stage = Stage(
    group=PROJECTION,
    decode=decode,
    handle=_project,
    publisher=FaustPublisher(app),
    retries=ScheduledRetries(_database, _database.clock),
    failed_events=FailedEvents(_database, _database.clock),
    opened=Seal(_database).opened,
    policy=RetryPolicy.of(_settings),
    # Here and in the check a batch may wait for the one before it, so a delivery is given the time of as many.
    timeout=timedelta(seconds=4 * _settings.stage_timeout_s),
)
attach(app, JOB_REQUESTS, stage, concurrency=_settings.batch_size)
attach(app, JOB_EVENTS, stage, concurrency=_settings.batch_size)
app.close_at_last(_database.close)
