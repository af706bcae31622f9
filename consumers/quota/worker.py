"""The Faust app of the quota stage."""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from consumers.quota.handlers import Facts, Request, Requests
from infra.postgres import Database
from infra.settings import Settings
from streams.delivery.deliveries import Delivery
from streams.jobs.dispatch import Dispatcher
from streams.jobs.events import JobCancelRequested, JobRequested
from streams.jobs.faust_app import StageApp, create_app
from streams.jobs.stages import QUOTA
from streams.jobs.topics import JOB_EVENTS, JOB_REQUESTS, about_jobs, expecting, read_fact

# Only who has used up a quota, and asks again after a failure, waits for a run to be settled.
_LINGER: Final = timedelta(milliseconds=100)


def create(settings: Settings, database: Database | None = None) -> StageApp:
    """Make the stage's app, on this pool, or on one of its own."""
    app = create_app(QUOTA, settings, database)
    requests = Requests(app.database, app.database.clock, settings)
    ends = Facts(app.database, app.database.clock, settings)
    read_request: Callable[[Delivery], Request] = expecting(JobRequested, JobCancelRequested)
    dispatcher = Dispatcher(app.database, app.publisher, window=settings.dispatch_window)
    asked = app.stage(read_request, dispatcher.after(requests.handle), requests.give_up)
    told = app.stage(read_fact, about_jobs(ends.handle), is_last=True)
    app.feed(JOB_REQUESTS, asked, concurrency=settings.batch_size)
    app.feed(JOB_EVENTS, told, concurrency=settings.batch_size, linger=_LINGER)
    app.close_before_producer(dispatcher.close)
    return app
