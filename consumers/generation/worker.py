"""The generation stage's Faust app: `faust -A consumers.generation worker`."""

from collections.abc import Sequence
from datetime import timedelta
from typing import cast

from consumers.generation.handlers import Generation
from consumers.generation.llm import Llm
from consumers.generation.runs import Handover, patience
from infra.postgres import Database
from infra.settings import settings
from streams.delivery.deliveries import Delivery, Record
from streams.delivery.failed_events import FailedEvents
from streams.delivery.policy import RetryPolicy
from streams.delivery.publisher import FaustPublisher
from streams.delivery.scheduled import ScheduledRetries
from streams.delivery.seal import Seal
from streams.delivery.stage import Stage
from streams.jobs.events import JobAccepted
from streams.jobs.faust_app import attach, create_app
from streams.jobs.ownership import Ownership
from streams.jobs.topics import GENERATION, JOB_ACCEPTED, JOB_ACCEPTED_PRIORITY, read_event

_TOPICS = (JOB_ACCEPTED, JOB_ACCEPTED_PRIORITY)

_settings = settings()
# Read with each call: a wrong one is to end the worker now, not to fail jobs then.
_settings.require("openai_api_key", "openai_base_url", "model", "completion_format", "generation_timeout_s")
_settings.require("materials_token_budget", "max_completion_tokens", "max_tokens_per_job")
_database = Database(_settings.database_url, size=_settings.database_pool_size)
_clock = _database.clock
_ownership = Ownership(_database, timeout=timedelta(seconds=_settings.stage_timeout_s))
_llm = Llm(_settings, connections=len(_TOPICS) * _settings.generation_concurrency)

app = create_app(GENERATION, _settings)
_publisher = FaustPublisher(app)
_generation = Generation(database=_database, llm=_llm, publisher=_publisher, clock=_clock, settings=_settings)


def _decode(delivery: Delivery) -> Handover:
    return Handover(cast("JobAccepted", read_event(delivery)), delivery.entry)


async def _handle(handover: Handover) -> Sequence[Record]:
    await _ownership.check(handover.event)
    return await _generation.handle(handover)


async def _give_up(handover: Handover, error: Exception) -> Sequence[Record]:
    # What failed may be the check.
    return await _generation.give_up(handover, error) if await _ownership.allows(handover.event) else ()


stage = Stage(
    group=GENERATION,
    decode=_decode,
    handle=_handle,
    give_up=_give_up,
    publisher=_publisher,
    retries=ScheduledRetries(_database, _clock),
    failed_events=FailedEvents(_database, _clock),
    opened=Seal(_database).opened,
    policy=RetryPolicy.of(_settings),
    timeout=patience(_settings),
)
for _topic in _TOPICS:
    attach(app, _topic, stage, concurrency=_settings.generation_concurrency)
app.close_at_last(_llm.close, _database.close)
