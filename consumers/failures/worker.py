"""The Faust app of the failures stage."""

from consumers.failures.handlers import HoldPolicy, Letters
from infra.postgres import Database
from infra.settings import Settings
from streams.delivery.deliveries import DEAD_LETTERS
from streams.delivery.letters import read_dead_letter
from streams.jobs.faust_app import StageApp, create_app
from streams.jobs.stages import FAILURES

# Letters may be large, and this many wait in memory together.
_CONCURRENCY = 50


def create(settings: Settings, database: Database | None = None) -> StageApp:
    """Make the stage's app, on this pool, or on one of its own."""
    app = create_app(FAILURES, settings, database)
    letters = Letters(app.database, app.database.clock, settings)
    stage = app.stage(read_dead_letter, letters.handle, policy=HoldPolicy.of(settings))
    app.feed(DEAD_LETTERS, stage, concurrency=_CONCURRENCY)
    return app
