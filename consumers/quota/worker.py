"""The Faust app of the quota stage, and which handler takes which event."""

from collections.abc import Sequence
from datetime import timedelta

from consumers.quota.admission import Admission, Admissions, decode_request
from consumers.quota.cancellation import Cancellations
from consumers.quota.delays import Delays
from consumers.quota.lanes import Lanes
from consumers.quota.settlement import Fact, Settlements, decode_fact, settles
from infra.errors import InvalidEvent
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
from streams.jobs.events import JobCancelRequested, JobRequested
from streams.jobs.faust_app import attach, create_app
from streams.jobs.ownership import Ownership, early_cancellation
from streams.jobs.topics import JOB_EVENTS, JOB_REQUESTS, QUOTA

_settings = settings()
_database = Database(_settings.database_url, size=_settings.database_pool_size)
_clock = _database.clock
_seal = Seal(_database)
_policy = RetryPolicy.of(_settings)
_timeout = timedelta(seconds=_settings.stage_timeout_s)

app = create_app(QUOTA, _settings)


def _owner(event: JobRequested | Fact) -> str:
    return event.data.organization_id


_admissions = Admissions(_database, _clock, trust_threshold=_settings.trust_threshold)
_settlements = Settlements(_database, _clock)
_cancellations = Cancellations(_database, _clock)
_delays = Delays(_database, _clock)
_ownership = Ownership(_database, timeout=_timeout)
_requests: Lanes[JobRequested, Admission] = Lanes(
    _admissions.admit,
    _admissions.admit_free,
    owner=_owner,
    max_size=_settings.batch_size,
    timeout_s=_settings.stage_timeout_s,
)
_delayed: Batcher[JobRequested, None] = Batcher(
    _delays.keep, max_size=_settings.batch_size, timeout_s=_settings.stage_timeout_s
)
_facts: Lanes[Fact, None] = Lanes(
    _settlements.settle,
    _settlements.settle_free,
    owner=_owner,
    max_size=_settings.batch_size,
    timeout_s=_settings.stage_timeout_s,
)


async def _decide(event: JobRequested | JobCancelRequested) -> Sequence[Record]:
    if isinstance(event, JobCancelRequested):
        return await _cancellations.cancel(event) if await _ownership.cancels_now(event) else ()
    evidence = await _ownership.check(event)
    if (before := early_cancellation(event, evidence)) is not None:
        return await _cancellations.cancel(before)
    if _delays.delayed(event):
        await _delayed.submit(event)
        return ()
    return await _admit(event)


async def _give_up(event: JobRequested | JobCancelRequested, error: Exception) -> Sequence[Record]:
    # A cancellation that cannot be decided leaves the job as it is; the dead letter says so. What failed may be the
    # check itself, so it is made once more.
    if isinstance(event, JobCancelRequested) or not await _ownership.allows(event):
        return ()
    return await _admissions.give_up(event, error)


async def _admit(request: JobRequested) -> Sequence[Record]:
    admission = await _requests.submit(request)
    if isinstance(admission, InvalidEvent):
        raise admission
    return admission


async def _settle(fact: Fact) -> Sequence[Record]:
    if settles(fact):
        await _ownership.check(fact)
        await _facts.submit(fact)
    return ()


requests_stage: Stage[JobRequested | JobCancelRequested] = Stage(
    group=QUOTA,
    decode=decode_request,
    handle=_decide,
    give_up=_give_up,
    publisher=FaustPublisher(app),
    retries=ScheduledRetries(_database, _clock),
    failed_events=FailedEvents(_database, _clock),
    opened=_seal.opened,
    policy=_policy,
    timeout=_timeout,
)
facts_stage: Stage[Fact] = Stage(
    group=QUOTA,
    decode=decode_fact,
    handle=_settle,
    publisher=FaustPublisher(app),
    retries=ScheduledRetries(_database, _clock),
    failed_events=FailedEvents(_database, _clock),
    opened=_seal.opened,
    policy=_policy,
    timeout=_timeout,
)
attach(app, JOB_REQUESTS, requests_stage, concurrency=_settings.batch_size)
attach(app, JOB_EVENTS, facts_stage, concurrency=_settings.batch_size)
app.close_at_last(_database.close)
