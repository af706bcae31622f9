"""The Faust app of the generation stage."""

from consumers.generation.handlers import Generation
from consumers.generation.llm import Llm
from consumers.generation.runs import patience
from infra.postgres import Database
from infra.settings import Settings
from streams.jobs.events import JobAccepted
from streams.jobs.faust_app import StageApp, create_app
from streams.jobs.stages import GENERATION
from streams.jobs.topics import JOB_ACCEPTED, JOB_ACCEPTED_PRIORITY, expecting

_TOPICS = (JOB_ACCEPTED, JOB_ACCEPTED_PRIORITY)


def create(settings: Settings, database: Database | None = None) -> StageApp:
    """Make the stage's app, on this pool, or on one of its own.

    Raises:
        InvalidSetting: one that a call needs is missing. It ends the worker now instead of failing jobs then.
    """
    settings.require("openai_api_key", "openai_base_url", "model", "completion_format", "generation_timeout_s")
    settings.require("materials_token_budget", "max_completion_tokens", "max_tokens_per_job")
    llm = Llm(settings, connections=len(_TOPICS) * settings.generation_concurrency)
    app = create_app(GENERATION, settings, database)
    generation = Generation(
        database=app.database, llm=llm, publisher=app.publisher, clock=app.database.clock, settings=settings
    )
    stage = app.stage(expecting(JobAccepted), generation.handle, generation.give_up, timeout=patience(settings))
    for topic in _TOPICS:
        app.feed(topic, stage, concurrency=settings.generation_concurrency)
    app.close_at_last(llm.close)
    return app
