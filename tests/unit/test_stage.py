"""The stage wrapper: one durable outcome for every delivery, whatever its handler does."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import structlog

from infra.errors import DependencyDown, InvalidEvent, Permanent, Postponed, Transient
from streams.delivery import dead_letters
from streams.delivery.deliveries import ATTEMPT, FOR_GROUP, Delivery, Record
from streams.delivery.letters import FailedEvent
from streams.delivery.policy import RetryPolicy
from streams.delivery.settle import Settler
from streams.delivery.stage import Stage
from streams.delivery.traces import Trace
from streams.jobs.events import JobId, JobRequested
from streams.jobs.facts import job_requested
from streams.redis.dead_letter import DEAD_LETTER_ERROR, DEAD_LETTER_GROUP, DEAD_LETTER_TOPIC

POLICY = RetryPolicy(max_attempts=3, base=timedelta(seconds=2), cap=timedelta(minutes=5))
SELDOM = RetryPolicy(max_attempts=1, base=timedelta(hours=1), cap=timedelta(hours=1))
AT_ONCE = RetryPolicy(max_attempts=1, base=timedelta(), cap=timedelta())
DELIVERY = Delivery("job-requests", b"key", b"value")
FACT = Record("job-events", b"key", b"fact")


@dataclass
class Topics:
    """A broker that remembers, and that can be away for the next few calls."""

    away: int = 0
    written: list[Record] = field(default_factory=list)

    async def publish(self, records: Sequence[Record]) -> None:
        if self.away:
            self.away -= 1
            raise DependencyDown("broker", "the broker is away")
        self.written.extend(records)

    def named(self, topic: str) -> list[Record]:
        return [one for one in self.written if one.topic == topic]


@dataclass
class Later:
    """A retry schedule that remembers."""

    kept: list[tuple[Record, timedelta]] = field(default_factory=list)

    async def schedule(self, record: Record, delay: timedelta, *, reason: str) -> None:
        assert reason
        self.kept.append((record, delay))


@dataclass
class Kept:
    """A table of failed events that remembers."""

    letters: list[FailedEvent] = field(default_factory=list)

    async def keep_one(self, letter: FailedEvent) -> None:
        self.letters.append(letter)


async def as_it_is(delivery: Delivery) -> Delivery:
    """Believe every header: what a seal is for has tests of its own."""
    return delivery


@dataclass(frozen=True)
class Asked:
    """An event of one job of an organization, as far as the stage looks at it."""

    job_id: int
    organization_id: str
    value: bytes = b"value"


def asked(delivery: Delivery) -> Asked:
    """Read an event whose key is its job, one of five organizations."""
    number = int(delivery.key or b"0")
    return Asked(number, f"org-{number % 5}")


def numbered(number: int) -> Delivery:
    """A delivery of the job of this number."""
    return Delivery("job-requests", b"%d" % number, b"value")


@dataclass
class Script:
    """A handler that raises what its script says, then succeeds."""

    errors: list[Exception] = field(default_factory=list)
    calls: int = 0

    async def handle(self, event: bytes | None, _delivery: Delivery) -> Sequence[Record]:
        self.calls += 1
        assert event == b"value"
        if self.errors:
            raise self.errors.pop(0)
        return (FACT,)


def _value(delivery: Delivery) -> bytes | None:
    return delivery.value


def stage_of(script: Script, topics: Topics, later: Later, **more: object) -> Stage[bytes | None]:
    """Build a stage on these fakes; `more` sets other attributes of it or of its settler."""
    parts: dict[str, Any] = {"group": "quota", "publisher": topics, "retries": later, "failed_events": Kept()}
    whole: dict[str, Any] = {"decode": _value, "handle": script.handle, "opened": as_it_is, "policy": POLICY}
    whole |= {"timeout": timedelta(seconds=5), "probing": AT_ONCE}
    of_settler = {one.name for one in fields(Settler)}
    for name, value in more.items():
        (parts if name in of_settler else whole)[name] = value
    return Stage(settler=Settler(**parts), **whole)


async def test_what_follows_is_published_when_the_handler_returns() -> None:
    """A handler's records reach their topics before the delivery counts as processed."""
    topics, later = Topics(), Later()
    await stage_of(Script(), topics, later).process(DELIVERY)
    assert topics.written == [FACT]
    assert not later.kept


async def test_a_transient_failure_is_scheduled_for_this_group_alone() -> None:
    """A retry is kept with the next attempt's number and addressed to the group that failed."""
    topics, later = Topics(), Later()
    await stage_of(Script([Transient("llm_timeout", "slow")]), topics, later).process(DELIVERY)
    [(again, delay)] = later.kept
    assert again.value == b"value"
    assert again.headers == {ATTEMPT: b"2", FOR_GROUP: b"quota"}
    assert timedelta(seconds=1) <= delay <= timedelta(seconds=3)
    assert not topics.written


async def test_what_is_postponed_comes_again_as_the_same_attempt() -> None:
    """Waiting for one's turn costs no attempt, and however many do so, the stage is not taken for broken."""
    later = Later()
    errors: list[Exception] = [Postponed("not yet", delay=timedelta(seconds=9))] * 100
    stage = stage_of(Script(errors), Topics(), later)
    for _ in range(100):
        await stage.process(Delivery("job-requests", b"key", b"value", {ATTEMPT: b"3"}))
    assert {(again.headers[ATTEMPT], delay) for again, delay in later.kept} == {(b"3", timedelta(seconds=9))}
    assert stage.held is None


async def test_retry_after_is_obeyed() -> None:
    """A retry is never due before the moment that the other side has named."""
    later = Later()
    error = Transient("llm_rate_limited", "429", retry_after=timedelta(minutes=20))
    await stage_of(Script([error]), Topics(), later).process(DELIVERY)
    assert later.kept[0][1] >= timedelta(minutes=20)


@pytest.mark.parametrize(
    ("error", "attempt"),
    [
        (Transient("llm_timeout", "slow"), b"3"),
        (Permanent("llm_refusal", "no"), b"1"),
        (InvalidEvent("data.team_id: missing"), b"1"),
        (ZeroDivisionError("a bug"), b"1"),
    ],
)
async def test_what_cannot_succeed_becomes_a_dead_letter_with_its_bytes(error: Exception, attempt: bytes) -> None:
    """The original bytes and headers are kept, with the error and its traceback."""
    topics, later = Topics(), Later()
    delivery = Delivery("job-requests", b"key", b"value", {"trace": b"\xff", ATTEMPT: attempt})
    kept = Kept()
    await stage_of(Script([error]), topics, later, failed_events=kept).process(delivery)
    [letter] = topics.named("dead-letters")
    assert (letter.key, letter.value, letter.headers["trace"]) == (b"key", b"value", b"\xff")
    assert letter.headers[DEAD_LETTER_GROUP] == b"quota"
    assert letter.headers[DEAD_LETTER_TOPIC] == b"job-requests"
    assert letter.headers[DEAD_LETTER_ERROR] == str(error).encode()
    assert type(error).__name__.encode() in letter.headers[dead_letters.TRACEBACK]
    [row] = kept.letters
    assert (row.key, row.event, row.error_message, row.stage) == (b"key", b"value", str(error), "quota")


async def test_giving_up_says_what_became_of_the_job() -> None:
    """The records of `give_up` are published together with the dead letter."""

    async def give_up(_event: bytes | None, _delivery: Delivery, _error: Exception) -> Sequence[Record]:
        return (FACT,)

    topics = Topics()
    await stage_of(Script([Permanent("llm_refusal", "no")]), topics, Later(), give_up=give_up).process(DELIVERY)
    assert topics.named("job-events") == [FACT]
    assert len(topics.named("dead-letters")) == 1


async def test_a_letter_that_cannot_be_kept_does_not_end_the_job() -> None:
    """Postgres is away when a stage gives up: it holds, and no run has failed of which nothing could be found."""
    ended = 0

    async def give_up(_event: bytes | None, _delivery: Delivery, _error: Exception) -> Sequence[Record]:
        nonlocal ended
        ended += 1
        return (FACT,)

    class Away(Kept):
        away = 2

        async def keep_one(self, letter: FailedEvent) -> None:
            assert not ended
            if self.away:
                self.away -= 1
                raise DependencyDown("postgres", "away")
            await super().keep_one(letter)

    topics, kept = Topics(), Away()
    script = Script([Permanent("llm_refusal", "no")])
    await stage_of(script, topics, Later(), give_up=give_up, failed_events=kept).process(DELIVERY)
    assert (ended, [one.topic for one in topics.written]) == (1, ["job-events", "dead-letters"])
    assert (script.calls, len(kept.letters)) == (1, 1)  # decided once, and settled until it was durable


async def test_bytes_that_cannot_be_read_are_a_dead_letter_and_no_jobs_failure() -> None:
    """Without an event there is no job to give up."""

    def refuse(_delivery: Delivery) -> bytes:
        raise InvalidEvent("data.team_id: field required")

    topics = Topics()
    await stage_of(Script(), topics, Later(), decode=refuse).process(DELIVERY)
    assert [one.topic for one in topics.written] == ["dead-letters"]


@pytest.mark.parametrize(
    "script",
    [
        Script([DependencyDown("postgres", "away")] * 7),
        Script([DependencyDown("llm", "away")] * 2 + [Transient("x", "y")]),
    ],
)
async def test_an_outage_spends_no_attempt(script: Script) -> None:
    """While a dependency is away the stage waits; afterwards the same delivery goes on as if nothing had been."""
    topics, later = Topics(), Later()
    transient = any(isinstance(error, Transient) for error in script.errors)
    stage = stage_of(script, topics, later)
    await stage.process(DELIVERY)
    assert stage.held is None
    assert not topics.named("dead-letters")
    assert [record.headers[ATTEMPT] for record, _ in later.kept] == ([b"2"] if transient else [])


async def test_a_broker_that_is_away_delays_the_facts_and_loses_none() -> None:
    """Publishing is repeated, through an idempotent handler, until the broker confirms."""
    topics = Topics(away=5)
    await stage_of(Script(), topics, Later()).process(DELIVERY)
    assert topics.written == [FACT]


async def test_a_held_stage_asks_with_one_delivery_at_a_time() -> None:
    """A hundred deliveries in hand do not become a hundred probes of a dependency that is down."""
    probes = most = 0
    up = asyncio.Event()

    async def handle(_event: bytes | None, _delivery: Delivery) -> Sequence[Record]:
        nonlocal probes, most
        probes += 1
        most = max(most, probes)
        await asyncio.sleep(0)
        probes -= 1
        if not up.is_set():
            raise DependencyDown("llm", "away")
        return ()

    stage = stage_of(Script(), Topics(), Later(), handle=handle)
    stage.standstill.why = "away"
    held = [asyncio.create_task(stage.process(DELIVERY)) for _ in range(100)]
    for _ in range(50):
        await asyncio.sleep(0)
    assert most == 1
    up.set()
    await asyncio.gather(*held)
    assert stage.held is None


async def test_what_began_before_a_hold_does_not_end_it() -> None:
    """A call that was under way when the dependency went away, and ends well, does not send everybody after it."""
    went_away, answered, up = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(event: bytes | None, _delivery: Delivery) -> Sequence[Record]:
        if event == b"early":
            await answered.wait()
        elif not up.is_set():
            went_away.set()
            raise DependencyDown("llm", "come back later")
        return ()

    stage = stage_of(Script(), Topics(), Later(), handle=handle)
    early = asyncio.create_task(stage.process(Delivery("t", None, b"early")))
    await asyncio.sleep(0)
    late = asyncio.create_task(stage.process(DELIVERY))
    await went_away.wait()
    answered.set()
    await early
    assert stage.held is not None
    up.set()
    await late
    assert stage.held is None


@pytest.mark.parametrize("error", [DependencyDown("postgres", "away"), RuntimeError("in the middle of a statement")])
async def test_an_error_that_comes_of_being_stopped_is_no_outcome(error: Exception) -> None:
    """A driver that turns its cancellation into an error keeps no agent running, and fails no job."""
    waiting = asyncio.Event()

    async def handle(_event: bytes | None, _delivery: Delivery) -> Sequence[Record]:
        try:
            waiting.set()
            await asyncio.Event().wait()
        finally:
            raise error.with_traceback(None)

    topics, later = Topics(), Later()
    stage = stage_of(Script(), topics, later, handle=handle)
    processing = asyncio.create_task(stage.process(DELIVERY))
    await waiting.wait()
    processing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await processing
    assert stage.held is None
    assert not topics.written
    assert not later.kept


async def test_many_failures_at_once_are_one_outage() -> None:
    """Only probes lengthen the wait for the next one, however many deliveries met the outage."""
    up = asyncio.Event()

    async def handle(_event: bytes | None, _delivery: Delivery) -> Sequence[Record]:
        if not up.is_set():
            raise DependencyDown("llm", "away")
        return ()

    probing = RetryPolicy(max_attempts=1, base=timedelta(milliseconds=1), cap=timedelta(hours=1))
    stage = stage_of(Script(), Topics(), Later(), handle=handle, probing=probing)
    held = [asyncio.create_task(stage.process(DELIVERY)) for _ in range(300)]
    await asyncio.sleep(0)
    assert stage.held is not None
    up.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*held)


async def test_a_stage_that_stops_gives_back_what_waits_and_finishes_what_it_tries() -> None:
    """Whoever only waits for a held stage is told to go at once; a probe under way goes on to its end."""
    probing, up = asyncio.Event(), asyncio.Event()
    calls = 0

    async def handle(_event: bytes | None, _delivery: Delivery) -> Sequence[Record]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise DependencyDown("postgres", "away")
        probing.set()
        await up.wait()
        return (FACT,)

    topics = Topics()
    stage = stage_of(Script(), topics, Later(), handle=handle)
    prober = asyncio.create_task(stage.process(DELIVERY))
    await probing.wait()
    waiting = [asyncio.create_task(stage.process(DELIVERY)) for _ in range(50)]
    await asyncio.sleep(0)
    stage.waits.stop()
    late = asyncio.create_task(stage.process(DELIVERY))
    async with asyncio.timeout(10):
        assert not any(await asyncio.gather(*waiting, late))
        up.set()
        assert await prober
    assert (calls, topics.written) == (2, [FACT])


async def test_a_delivery_that_meets_an_outage_while_the_stage_stops_is_given_back() -> None:
    """It was begun before the stop, so it is tried; it does not wait for the outage to end."""
    stage = stage_of(Script([DependencyDown("postgres", "away")]), Topics(), Later())
    stage.waits.stop()
    async with asyncio.timeout(10):
        assert not await stage.process(DELIVERY)
        assert stage.held is not None


async def test_a_handler_that_hangs_is_ended_and_tried_again() -> None:
    """The stage's timeout counts as a transient failure."""

    async def hang(_event: bytes | None, _delivery: Delivery) -> Sequence[Record]:
        await asyncio.Event().wait()
        return ()

    later = Later()
    await stage_of(Script(), Topics(), later, handle=hang, timeout=timedelta(milliseconds=10)).process(DELIVERY)
    assert later.kept[0][0].headers[ATTEMPT] == b"2"


async def test_an_event_for_another_group_is_none_of_this_stages_business() -> None:
    """A replay addressed to one group has no effect in the others."""
    script = Script()
    await stage_of(script, Topics(), Later()).process(Delivery("t", None, b"value", {FOR_GROUP: b"projection"}))
    assert script.calls == 0


@pytest.mark.parametrize("broken", ["publish", "schedule", "give_up"])
async def test_an_error_while_settling_holds_the_delivery_instead_of_losing_it(broken: str) -> None:
    """Even a bug in what makes an outcome durable only delays the delivery."""
    script = Script([Transient("x", "y")] * 2 if broken == "schedule" else [])
    topics, later = Topics(), Later()
    stage = stage_of(script, topics, later)
    fail_once: list[Callable[[], None]] = [_raise_bug]

    async def publish(records: Sequence[Record]) -> None:
        if fail_once:
            fail_once.pop()()
        await topics.publish(records)

    async def schedule(record: Record, delay: timedelta, *, reason: str) -> None:
        if fail_once and broken == "schedule":
            fail_once.pop()()
        await later.schedule(record, delay, reason=reason)

    async def give_up(_event: bytes | None, _delivery: Delivery, _error: Exception) -> Sequence[Record]:
        if fail_once:
            fail_once.pop()()
        return ()

    if broken == "give_up":
        script.errors = [Permanent("x", "y")] * 2
        stage.settler.give_up = give_up
    stage.settler.publisher = type("P", (), {"publish": staticmethod(publish)})()
    stage.settler.retries = type("R", (), {"schedule": staticmethod(schedule)})()
    await stage.process(DELIVERY)
    assert bool(topics.written) != bool([one for one, _ in later.kept if one.topic != "dead-letters"])
    assert not fail_once


def _raise_bug() -> None:
    raise KeyError("a bug in settling")


async def test_a_delivery_that_cannot_be_settled_does_not_block_the_others() -> None:
    """Deliveries take turns at probing a held stage, so one for which settling always fails delays only itself."""
    stage = stage_of(Script(), Topics(), Later())
    settled: list[bytes | None] = []

    async def handle(event: bytes | None, _delivery: Delivery) -> Sequence[Record]:
        return (Record("t", None, event),)

    async def publish(records: Sequence[Record]) -> None:
        await asyncio.sleep(0)
        for one in records:
            if one.value == b"poison":
                _raise_bug()
            settled.append(one.value)

    stage.handle = handle
    stage.settler.publisher = type("P", (), {"publish": staticmethod(publish)})()
    poison = asyncio.create_task(stage.process(Delivery("t", None, b"poison")))
    await asyncio.sleep(0)
    healthy = [asyncio.create_task(stage.process(Delivery("t", None, b"%d" % number))) for number in range(50)]
    async with asyncio.timeout(60):
        await asyncio.gather(*healthy)
    assert len(settled) == 50
    assert not poison.done()
    poison.cancel()


async def test_a_bad_deploy_holds_the_stage_instead_of_failing_the_backlog() -> None:
    """When most tries fail, jobs are held, not spent; when tries succeed again, every held job goes on."""
    topics, later = Topics(), Later()
    broken = True

    async def handle(_event: bytes | None, _delivery: Delivery) -> Sequence[Record]:
        await asyncio.sleep(0)
        if broken:
            _raise_bug()
        return (FACT,)

    stage = stage_of(Script(), topics, later, handle=handle, decode=asked, probing=SELDOM)
    backlog = [asyncio.create_task(stage.process(numbered(number))) for number in range(200)]
    for _ in range(200):
        await asyncio.sleep(0)
    # Those that were being tried as the window opened are tried again, since the stage may be to blame.
    assert stage.held is not None
    assert "most deliveries fail" in stage.held
    assert len(topics.named("dead-letters")) < stage.window.minimum
    broken = False
    stage.window.succeeded()
    stage._resume()
    for task in backlog:
        task.cancel()
    await asyncio.gather(*backlog, return_exceptions=True)
    before = len(topics.named("dead-letters")), len(later.kept)
    for record, _ in list(later.kept):
        await stage.process(Delivery(record.topic, record.key, record.value, record.headers))
    assert (len(topics.named("dead-letters")), len(later.kept)) == before
    assert len(topics.named("job-events")) == len(later.kept)


async def test_a_flood_of_unreadable_events_does_not_hold_the_stage() -> None:
    """What is wrong with an event is not wrong with the stage."""

    def refuse(_delivery: Delivery) -> bytes:
        raise InvalidEvent("data.team_id: field required")

    topics = Topics()
    stage = stage_of(Script(), topics, Later(), decode=refuse)
    for _ in range(100):
        await stage.process(DELIVERY)
    assert len(topics.named("dead-letters")) == 100


async def test_a_dead_letter_of_a_retried_event_is_for_the_failures_stage() -> None:
    """The letter carries its original's headers, which were addressed to the group that gave it up."""
    topics = Topics()
    retried = Delivery("job-accepted", b"key", b"value", {ATTEMPT: b"3", FOR_GROUP: b"quota"})
    await stage_of(Script([Transient("llm_timeout", "slow")]), topics, Later()).process(retried)
    [letter] = topics.named("dead-letters")
    assert Delivery(letter.topic, letter.key, letter.value, letter.headers).is_for("failures")


async def test_a_bad_deploy_after_many_successes_is_noticed_as_soon() -> None:
    """What went well a moment ago does not let the whole backlog fail now."""
    topics = Topics()
    errors: list[Exception] = []

    async def handle(_event: Asked, _delivery: Delivery) -> Sequence[Record]:
        await asyncio.sleep(0)
        if errors:
            raise errors[0]
        return ()

    stage = stage_of(Script(), topics, Later(), handle=handle, decode=asked, probing=SELDOM)
    for number in range(500):
        await stage.process(numbered(number))
    errors.append(ZeroDivisionError("a bug"))
    backlog = [asyncio.create_task(stage.process(numbered(number))) for number in range(100)]
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(topics.named("dead-letters")) <= 2 * stage.window.minimum
    assert stage.held is not None
    for task in backlog:
        task.cancel()


async def test_log_lines_about_a_delivery_name_its_job_and_trace() -> None:
    """Whatever is logged while a delivery is handled says which job and whose trace it belongs to, and only then."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    event = job_requested(
        job_id=JobId(uuid4()),
        organization_id="acme",
        team_id="t",
        requirements="a game",
        at=datetime.now(UTC),
        trace=Trace(f"00-{trace}-00f067aa0ba902b7-01"),
    )
    bound: list[dict[str, object]] = []

    async def handle(_event: JobRequested, _delivery: Delivery) -> Sequence[Record]:
        bound.append(structlog.contextvars.get_contextvars())
        return ()

    def decode(_delivery: Delivery) -> JobRequested:
        return event

    await stage_of(Script(), Topics(), Later(), handle=handle, decode=decode).process(DELIVERY)
    assert bound == [{"job_id": str(event.job_id), "run": "1", "trace_id": trace}]
    assert structlog.contextvars.get_contextvars() == {}


async def test_one_organization_never_holds_a_stage() -> None:
    """However many jobs of one customer fail, and however often one job does, the stage goes on for everybody."""
    topics, later = Topics(), Later()

    async def handle(event: Asked, _delivery: Delivery) -> Sequence[Record]:
        if event.organization_id == "bad":
            raise Transient("llm_invalid_output", "two activities")
        return (FACT,)

    def decode(delivery: Delivery) -> Asked:
        number = int(delivery.key or b"0")
        return Asked(number, "bad" if number < 1_000 else "good")

    stage = stage_of(Script(), topics, later, handle=handle, decode=decode)
    for number in range(60):
        for attempt in (b"1", b"2", b"3"):
            await stage.process(Delivery("job-accepted", b"%d" % number, b"value", {ATTEMPT: attempt}))
            assert stage.held is None
    assert len(topics.named("dead-letters")) == 60
    for number in range(1_000, 1_050):
        await stage.process(numbered(number))
    assert topics.named("job-events") == [FACT] * 50


async def test_a_job_that_fails_is_tried_as_often_as_it_may_be_whatever_the_stage_does() -> None:
    """Held or not, each failed try has spent an attempt, and a hold calls no handler for the same job again."""
    calls: dict[int, int] = {}
    waiting: list[Record] = []

    class Again(Later):
        async def schedule(self, record: Record, delay: timedelta, *, reason: str) -> None:
            waiting.append(record)

    async def handle(event: Asked, _delivery: Delivery) -> Sequence[Record]:
        calls[event.job_id] = calls.get(event.job_id, 0) + 1
        raise Transient("llm_invalid_output", "two activities")

    topics = Topics()
    stage = stage_of(Script(), topics, Again(), handle=handle, decode=asked)
    for number in range(60):
        await stage.process(numbered(number))
    assert stage.held is not None
    async with asyncio.timeout(20):
        while waiting:
            record = waiting.pop(0)
            await stage.process(Delivery(record.topic, record.key, record.value, record.headers))
    assert set(calls.values()) == {POLICY.max_attempts}
    assert len(topics.named("dead-letters")) == 60


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.UntranslatableCharacterError("\\u0000 cannot be converted to text"),
        asyncpg.DatetimeFieldOverflowError("out of range"),
        asyncpg.DataError("invalid input for query argument $1"),
        asyncpg.CheckViolationError("violates check constraint"),
        asyncpg.ProgramLimitExceededError("index row size 3000 exceeds maximum 2704"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
        OverflowError("int too large"),
    ],
)
async def test_what_the_data_causes_is_a_dead_letter_at_once_and_holds_nobody(error: Exception) -> None:
    """Decided by the class of the error, for any number of senders: no second try, and no window opens."""
    topics, later, kept = Topics(), Later(), Kept()

    async def handle(event: Asked, _delivery: Delivery) -> Sequence[Record]:
        if event.job_id % 10:
            raise error.with_traceback(None)
        return (FACT,)

    stage = stage_of(Script(), topics, later, handle=handle, decode=asked, failed_events=kept)
    for number in range(1_000):
        await stage.process(numbered(number))
        assert stage.held is None
    assert (len(kept.letters), len(topics.named("job-events")), later.kept) == (900, 100, [])


async def test_a_suspected_stage_looks_at_other_senders_entries() -> None:
    """Poison of several senders is in all hands; the first entry of another is tried at once, and resumes the stage."""

    async def handle(event: Asked, _delivery: Delivery) -> Sequence[Record]:
        if event.organization_id != "good":
            _raise_bug()
        return (FACT,)

    def decode(delivery: Delivery) -> Asked:
        return Asked(0, "good") if delivery.key == b"good" else asked(delivery)

    topics, later = Topics(), Later()
    stage = stage_of(Script(), topics, later, handle=handle, decode=decode, probing=SELDOM)
    poison = [asyncio.create_task(stage.process(numbered(number))) for number in range(100)]
    for _ in range(200):
        await asyncio.sleep(0)
    assert stage.held is not None
    async with asyncio.timeout(10):
        await stage.process(Delivery("job-requests", b"good", b"value"))
    assert topics.named("job-events") == [FACT]
    assert stage.held is None
    for task in poison:
        task.cancel()


async def test_what_waits_for_a_suspected_stage_waits_outside_when_hands_are_full() -> None:
    """More than a few poison deliveries never keep the agents: the rest is kept for later, and no attempt is spent."""
    topics, later = Topics(), Later()

    async def handle(_event: Asked, _delivery: Delivery) -> Sequence[Record]:
        _raise_bug()
        return ()

    stage = stage_of(Script(), topics, later, handle=handle, decode=asked, probing=SELDOM)
    for number in range(100):
        if stage.held is not None:
            break
        await stage.process(numbered(number))
    tried = len(later.kept)
    late = [asyncio.create_task(stage.process(numbered(number))) for number in range(200, 240)]
    async with asyncio.timeout(20):
        while sum(task.done() for task in late) < 20:
            await asyncio.wait(late, timeout=1, return_when=asyncio.FIRST_COMPLETED)
    put_aside = later.kept[tried:]
    assert {record.headers[ATTEMPT] for record, delay in put_aside if delay >= timedelta(seconds=30)} == {b"1"}
    for task in late:
        task.cancel()


async def test_a_job_that_cannot_be_given_up_is_kept_all_the_same() -> None:
    """Whatever fails inside giving up, the letter is there, and the delivery is settled."""

    async def give_up(_event: object, _delivery: Delivery, _error: Exception) -> Sequence[Record]:
        raise ValueError("the fact holds what Postgres does not take")

    topics, kept = Topics(), Kept()
    script = Script([Permanent("llm_refusal", "no")])
    assert await stage_of(script, topics, Later(), give_up=give_up, failed_events=kept).process(DELIVERY)
    assert (len(kept.letters), len(topics.named("dead-letters"))) == (1, 1)
