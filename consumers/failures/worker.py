"""The Faust app of the failures stage, and what becomes of a letter once it is kept."""

from collections.abc import Sequence
from datetime import timedelta

from consumers.failures.handlers import HoldPolicy
from consumers.failures.poison import Poison
from consumers.failures.unreadable import Unreadable
from infra.errors import DependencyDown
from infra.postgres import Database
from infra.settings import settings
from streams.delivery.batching import Batcher
from streams.delivery.deliveries import DEAD_LETTERS, Record
from streams.delivery.failed_events import FailedEvents
from streams.delivery.letters import FailedEvent, read_dead_letter
from streams.delivery.publisher import FaustPublisher
from streams.delivery.scheduled import ScheduledRetries
from streams.delivery.seal import Seal
from streams.delivery.stage import Stage
from streams.jobs.faust_app import attach, create_app
from streams.jobs.topics import FAILURES

# Letters may be large, and this many wait in memory together.
_CONCURRENCY = 50

_settings = settings()
_database = Database(_settings.database_url, size=_settings.database_pool_size)
_clock = _database.clock

app = create_app(FAILURES, _settings)

_failed_events = FailedEvents(_database, _clock)
_letters: Batcher[FailedEvent, None] = Batcher(
    _failed_events.keep, max_size=_settings.batch_size, timeout_s=_settings.stage_timeout_s
)
_poison = Poison(_database, _clock)
_unreadable = Unreadable(_database, _clock)


async def _keep(letter: FailedEvent) -> Sequence[Record]:
    try:
        await _letters.submit(letter)
    except (DependencyDown, TimeoutError):
        raise
    except Exception:  # noqa: BLE001 - whatever the batch could not describe is kept alone, its bytes at the least
        await _failed_events.keep_one(letter)
    return [*await _poison.end_run(letter), *await _unreadable.end_job(letter)]


stage: Stage[FailedEvent] = Stage(
    group=FAILURES,
    decode=read_dead_letter,
    handle=_keep,
    publisher=FaustPublisher(app),
    retries=ScheduledRetries(_database, _clock),
    failed_events=_failed_events,
    opened=Seal(_database).opened,
    policy=HoldPolicy.of(_settings),
    timeout=timedelta(seconds=_settings.stage_timeout_s),
)
attach(app, DEAD_LETTERS, stage, concurrency=_CONCURRENCY)
app.close_at_last(_database.close)
