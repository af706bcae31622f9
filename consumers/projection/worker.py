"""The Faust app of the projection."""

from consumers.projection.handlers import Events
from infra.postgres import Database
from infra.settings import Settings
from streams.jobs.faust_app import StageApp, create_app
from streams.jobs.stages import PROJECTION
from streams.jobs.topics import JOB_EVENTS, JOB_REQUESTS, about_jobs, read_fact


def create(settings: Settings, database: Database | None = None) -> StageApp:
    """Make the stage's app, on this pool, or on one of its own."""
    app = create_app(PROJECTION, settings, database)
    events = Events(
        app.database, settings, lambda: min(settings.batch_size, app.brake.orders.limit or settings.batch_size)
    )
    stage = app.stage(read_fact, about_jobs(events.handle), is_last=True)
    for topic in (JOB_REQUESTS, JOB_EVENTS):
        app.feed(topic, stage, concurrency=settings.batch_size)
    return app
