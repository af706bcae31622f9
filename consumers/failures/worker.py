"""The Faust app of the failures stage: wiring and nothing else."""

from collections.abc import Sequence
from datetime import timedelta

from consumers.failures.handlers import FailedEvents, HoldPolicy
from consumers.failures.letters import DeadLetter, read_dead_letter
from consumers.failures.poison import Poison
from consumers.failures.unreadable import Unreadable
from infra.postgres import Database
from infra.settings import settings
from streams.batching import Batcher
from streams.deliveries import Record
from streams.faust_app import attach, create_app
from streams.publisher import FaustPublisher
from streams.scheduled import ScheduledRetries
from streams.stage import Stage
from streams.topics import DEAD_LETTERS, FAILURES

# Letters may be large, and this many wait in memory together.
_CONCURRENCY = 50

_settings = settings()
_database = Database(_settings.database_url, size=_settings.database_pool_size)
_clock = _database.clock

app = create_app(FAILURES, _settings)

_letters: Batcher[DeadLetter, None] = Batcher(
    FailedEvents(_database, _clock).keep, max_size=_settings.batch_size, timeout_s=_settings.stage_timeout_s
)
_poison = Poison(_database, _clock)
_unreadable = Unreadable(_database, _clock)


async def _keep(letter: DeadLetter) -> Sequence[Record]:
    await _letters.submit(letter)
    return [*await _poison.end_run(letter), *await _unreadable.end_job(letter)]


stage: Stage[DeadLetter] = Stage(
    group=FAILURES,
    decode=read_dead_letter,
    handle=_keep,
    publisher=FaustPublisher(app),
    retries=ScheduledRetries(_database, _clock),
    policy=HoldPolicy.of(_settings),
    timeout=timedelta(seconds=_settings.stage_timeout_s),
)
attach(app, DEAD_LETTERS, stage, concurrency=_CONCURRENCY)
app.close_at_last(_database.close)
