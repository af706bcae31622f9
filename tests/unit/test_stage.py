"""The stage wrapper: one durable outcome for every delivery, whatever its handler does."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import structlog

from infra.errors import DependencyDown, InvalidEvent, Permanent, Postponed, Transient
from streams import dead_letters
from streams.deliveries import ATTEMPT, FOR_GROUP, Delivery, Record
from streams.events import JobId, JobRequested, job_requested
from streams.policy import RetryPolicy
from streams.redis.dead_letter import DEAD_LETTER_ERROR, DEAD_LETTER_GROUP, DEAD_LETTER_TOPIC
from streams.stage import Stage
from streams.traces import Trace

POLICY = RetryPolicy(max_attempts=3, base=timedelta(seconds=2), cap=timedelta(minutes=5))
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
class Script:
    """A handler that raises what its script says, then succeeds."""

    errors: list[Exception] = field(default_factory=list)
    calls: int = 0

    async def handle(self, event: bytes | None) -> Sequence[Record]:
        self.calls += 1
        assert event == b"value"
        if self.errors:
            raise self.errors.pop(0)
        return (FACT,)


def _value(delivery: Delivery) -> bytes | None:
    return delivery.value


def stage_of(script: Script, topics: Topics, later: Later, **more: object) -> Stage[bytes | None]:
    """Build a stage on these fakes; `more` sets its other attributes."""
    stage: Stage[bytes | None] = Stage(
        group="quota",
        decode=_value,
        handle=script.handle,
        publisher=topics,
        retries=later,
        policy=POLICY,
        timeout=timedelta(seconds=5),
        probing=AT_ONCE,
    )
    for name, value in more.items():
        setattr(stage, name, value)
    return stage


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
    await stage_of(Script([error]), topics, later).process(delivery)
    [letter] = topics.named("dead-letters")
    assert (letter.key, letter.value, letter.headers["trace"]) == (b"key", b"value", b"\xff")
    assert letter.headers[DEAD_LETTER_GROUP] == b"quota"
    assert letter.headers[DEAD_LETTER_TOPIC] == b"job-requests"
    assert letter.headers[DEAD_LETTER_ERROR] == str(error).encode()
    assert type(error).__name__.encode() in letter.headers[dead_letters.TRACEBACK]
    # Until the row is there, whatever the broker forgets.
    assert later.kept == [(letter, dead_letters.UNTIL_KEPT)]


async def test_giving_up_says_what_became_of_the_job() -> None:
    """The records of `give_up` are published together with the dead letter."""

    async def give_up(_event: bytes | None, _error: Exception) -> Sequence[Record]:
        return (FACT,)

    topics = Topics()
    await stage_of(Script([Permanent("llm_refusal", "no")]), topics, Later(), give_up=give_up).process(DELIVERY)
    assert topics.named("job-events") == [FACT]
    assert len(topics.named("dead-letters")) == 1


async def test_a_letter_that_cannot_be_kept_does_not_end_the_job() -> None:
    """Postgres is away when a stage gives up: it holds, and no run has failed of which nothing could be found."""
    ended = 0

    async def give_up(_event: bytes | None, _error: Exception) -> Sequence[Record]:
        nonlocal ended
        ended += 1
        return (FACT,)

    class Away(Later):
        away = 2

        async def schedule(self, record: Record, delay: timedelta, *, reason: str) -> None:
            assert not ended
            if self.away:
                self.away -= 1
                raise DependencyDown("postgres", "away")
            await super().schedule(record, delay, reason=reason)

    topics = Topics()
    script = Script([Permanent("llm_refusal", "no")] * 3)
    await stage_of(script, topics, Away(), give_up=give_up).process(DELIVERY)
    assert (ended, [one.topic for one in topics.written]) == (1, ["job-events", "dead-letters"])


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

    async def handle(_event: bytes | None) -> Sequence[Record]:
        nonlocal probes, most
        probes += 1
        most = max(most, probes)
        await asyncio.sleep(0)
        probes -= 1
        if not up.is_set():
            raise DependencyDown("llm", "away")
        return ()

    stage = stage_of(Script(), Topics(), Later(), handle=handle)
    stage.held = "away"
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

    async def handle(event: bytes | None) -> Sequence[Record]:
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

    async def handle(_event: bytes | None) -> Sequence[Record]:
        try:
            waiting.set()
            await asyncio.Event().wait()
        finally:
            raise error

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

    async def handle(_event: bytes | None) -> Sequence[Record]:
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

    async def handle(_event: bytes | None) -> Sequence[Record]:
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
    stage.stop()
    late = asyncio.create_task(stage.process(DELIVERY))
    async with asyncio.timeout(10):
        assert not any(await asyncio.gather(*waiting, late))
        up.set()
        assert await prober
    assert (calls, topics.written) == (2, [FACT])


async def test_a_delivery_that_meets_an_outage_while_the_stage_stops_is_given_back() -> None:
    """It was begun before the stop, so it is tried; it does not wait for the outage to end."""
    stage = stage_of(Script([DependencyDown("postgres", "away")]), Topics(), Later())
    stage.stop()
    async with asyncio.timeout(10):
        assert not await stage.process(DELIVERY)
        assert stage.held is not None


async def test_a_handler_that_hangs_is_ended_and_tried_again() -> None:
    """The stage's timeout counts as a transient failure."""

    async def hang(_event: bytes | None) -> Sequence[Record]:
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

    async def give_up(_event: bytes | None, _error: Exception) -> Sequence[Record]:
        if fail_once:
            fail_once.pop()()
        return ()

    if broken == "give_up":
        script.errors = [Permanent("x", "y")] * 2
        stage.give_up = give_up
    stage.publisher = type("P", (), {"publish": staticmethod(publish)})()
    stage.retries = type("R", (), {"schedule": staticmethod(schedule)})()
    await stage.process(DELIVERY)
    assert bool(topics.written) != bool([one for one, _ in later.kept if one.topic != "dead-letters"])
    assert not fail_once


def _raise_bug() -> None:
    raise KeyError("a bug in settling")


async def test_a_delivery_that_cannot_be_settled_does_not_block_the_others() -> None:
    """Deliveries take turns at probing a held stage, so one for which settling always fails delays only itself."""
    stage = stage_of(Script(), Topics(), Later())
    settled: list[bytes | None] = []

    async def handle(event: bytes | None) -> Sequence[Record]:
        return (Record("t", None, event),)

    async def publish(records: Sequence[Record]) -> None:
        await asyncio.sleep(0)
        for one in records:
            if one.value == b"poison":
                _raise_bug()
            settled.append(one.value)

    stage.handle = handle
    stage.publisher = type("P", (), {"publish": staticmethod(publish)})()
    poison = asyncio.create_task(stage.process(Delivery("t", None, b"poison")))
    await asyncio.sleep(0)
    healthy = [asyncio.create_task(stage.process(Delivery("t", None, b"%d" % number))) for number in range(50)]
    async with asyncio.timeout(10):
        await asyncio.gather(*healthy)
    assert len(settled) == 50
    assert not poison.done()
    poison.cancel()


async def test_a_bad_deploy_holds_the_stage_instead_of_failing_the_backlog() -> None:
    """When most tries fail, jobs are held, not spent; when tries succeed again, every held job goes on."""
    topics, later = Topics(), Later()
    broken = True

    async def handle(_event: bytes | None) -> Sequence[Record]:
        await asyncio.sleep(0)
        if broken:
            _raise_bug()
        return (FACT,)

    stage = stage_of(Script(), topics, later, handle=handle)
    backlog = [asyncio.create_task(stage.process(DELIVERY)) for _ in range(200)]
    for _ in range(200):
        await asyncio.sleep(0)
    spent = len(topics.named("dead-letters"))
    assert spent < stage.window.minimum
    assert stage.held is not None
    assert "most deliveries fail" in stage.held
    broken = False
    await asyncio.gather(*backlog)
    assert len(topics.named("dead-letters")) == spent
    assert len(topics.named("job-events")) == 200 - spent


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
    topics, script = Topics(), Script()
    stage = stage_of(script, topics, Later())
    for _ in range(500):
        await stage.process(DELIVERY)
    script.errors = [ZeroDivisionError("a bug")] * 100
    backlog = [asyncio.create_task(stage.process(DELIVERY)) for _ in range(100)]
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(topics.named("dead-letters")) <= 2 * stage.window.minimum
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

    async def handle(_event: JobRequested) -> Sequence[Record]:
        bound.append(structlog.contextvars.get_contextvars())
        return ()

    def decode(_delivery: Delivery) -> JobRequested:
        return event

    await stage_of(Script(), Topics(), Later(), handle=handle, decode=decode).process(DELIVERY)
    assert bound == [{"job_id": str(event.job_id), "run": "1", "trace_id": trace}]
    assert structlog.contextvars.get_contextvars() == {}
