"""A held stage whose dependency may be away for it alone hands back, asks by itself, and begins with one delivery."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from infra.errors import DependencyDown
from streams.delivery.deliveries import Delivery, Record
from streams.delivery.policy import RetryPolicy
from streams.delivery.settle import Settler
from streams.delivery.stage import Stage
from tests.unit.test_stage import AT_ONCE, FACT, SELDOM, Kept, Later, Topics, as_it_is
from tests.waiting import wait_for

AWAY = DependencyDown("llm", "no such address")


@dataclass
class Provider:
    """What the stage needs; each call, and each question, is answered as the test says."""

    is_away: bool = True
    answers: bool = False
    asked: int = 0
    called: list[str] = field(default_factory=list)
    slow: asyncio.Event | None = None
    changes: list[int | None] = field(default_factory=list)

    async def ask(self) -> None:
        self.asked += 1
        if not self.answers:
            raise AWAY

    async def handle(self, event: str, _: Delivery) -> Sequence[Record]:
        self.called.append(event)
        if self.slow is not None:
            await self.slow.wait()
        if self.is_away:
            raise AWAY
        return [FACT]


def stage_of(
    provider: Provider, *, topics: Topics | None = None, probing: RetryPolicy = SELDOM, hands_back: bool = True
) -> Stage[str]:
    """Return a stage around it."""
    stage = Stage(
        decode=lambda delivery: (delivery.key or b"").decode(),
        handle=provider.handle,
        settler=Settler(group="g", publisher=topics or Topics(), retries=Later(), failed_events=Kept()),
        opened=as_it_is,
        policy=RetryPolicy(max_attempts=3, base=timedelta(seconds=2), cap=timedelta(minutes=5)),
        timeout=timedelta(seconds=30),
        probing=probing,
        asks={"llm": provider.ask},
    )
    stage.empty_hands.hands_back = hands_back
    stage.empty_hands.on_change = lambda: provider.changes.append(stage.empty_hands.most)
    return stage


async def ended(stage: Stage[str]) -> None:
    """Stop the stage, as a worker does."""
    stage.waits.stop()
    async with asyncio.timeout(10):
        await stage.empty_hands.close()


def delivery(name: str) -> Delivery:
    """Return a delivery of this name."""
    return Delivery("asked", name.encode(), b"value")


async def test_it_hands_all_back_and_takes_nothing() -> None:
    """What it has tried, what is being tried, and what comes yet go to other workers; nothing is tried twice."""
    provider = Provider(slow=asyncio.Event())
    stage = stage_of(provider)
    assert stage.empty_hands.most is None
    under_way = [asyncio.create_task(stage.process(delivery(name))) for name in "abc"]
    await wait_for(lambda: len(provider.called) == 3, what="three to be tried")
    assert provider.slow is not None
    provider.slow.set()
    assert await asyncio.gather(*under_way) == [False, False, False]
    assert await stage.process(delivery("late")) is False
    assert provider.called == ["a", "b", "c"]
    assert stage.empty_hands.most == 0
    assert "no such address" in str(stage.held)
    assert provider.changes == [0]
    await ended(stage)


async def test_it_asks_by_itself_and_then_takes_one() -> None:
    """Only when that one is settled does it take as many as it has places for."""
    provider = Provider()
    stage = stage_of(provider, probing=AT_ONCE)
    assert await stage.process(delivery("a")) is False
    await wait_for(lambda: provider.asked > 3, what="questions, with nothing in hand")
    assert stage.empty_hands.most == 0
    provider.is_away, provider.answers, provider.slow = False, True, asyncio.Event()
    await wait_for(lambda: stage.held is None, what="the answer to be good")
    assert stage.empty_hands.most == 1
    showing = asyncio.create_task(stage.process(delivery("b")))
    await wait_for(lambda: provider.called == ["a", "b"], what="the one to be tried")
    assert stage.empty_hands.most == 0
    provider.slow.set()
    assert await showing
    assert stage.empty_hands.most is None
    assert provider.changes == [0, 1]


async def test_what_was_begun_before_shows_nothing() -> None:
    """A call may take long. It must not keep the stage from taking the one that shows."""
    provider = Provider(slow=asyncio.Event())
    stage = stage_of(provider, probing=AT_ONCE)
    slow = provider.slow
    old = asyncio.create_task(stage.process(delivery("old")))
    await wait_for(lambda: provider.called == ["old"], what="a call that takes long")
    provider.slow = None
    assert await stage.process(delivery("a")) is False
    provider.is_away, provider.answers = False, True
    await wait_for(lambda: stage.held is None, what="the answer to be good")
    assert stage.empty_hands.most == 1
    assert slow is not None
    slow.set()
    assert await old
    assert stage.empty_hands.most == 1
    assert await stage.process(delivery("b"))
    assert stage.empty_hands.most is None


async def test_waits_grow_until_a_delivery_has_shown_it() -> None:
    """An endpoint that answers questions and refuses work is not given work again and again without a pause."""
    provider = Provider(answers=True)
    probing = RetryPolicy(max_attempts=1, base=timedelta(milliseconds=1), cap=timedelta(hours=1))
    stage = stage_of(provider, probing=probing)
    waits = []
    for _ in range(6):
        assert await stage.process(delivery("a")) is False
        waits.append(stage.standstill.until_next_probe)
        await wait_for(lambda: stage.held is None, what="the answer to be good")
    # Doubled each time, with jitter of half either way.
    assert waits[-1] > 5 * waits[0]


async def test_what_waits_for_something_else_stays() -> None:
    """A call that was paid for is not published yet when the endpoint goes away too: it stays until it is."""
    provider, topics = Provider(slow=asyncio.Event()), Topics(away=1)
    stage = stage_of(provider, topics=topics)
    slow = provider.slow
    failing = asyncio.create_task(stage.process(delivery("failing")))
    await wait_for(lambda: provider.called == ["failing"], what="a call that takes long")
    provider.slow, provider.is_away = None, False
    paid = asyncio.create_task(stage.process(delivery("paid")))
    await wait_for(lambda: stage.waits_for == "broker", what="the broker to be missed")
    provider.is_away = True
    assert slow is not None
    slow.set()
    assert await failing is False
    assert stage.empty_hands.most == 0
    assert await stage.process(delivery("late")) is False
    assert not paid.done()
    stage.standstill.probe_now()
    assert await paid
    assert topics.written == [FACT]
    assert provider.called == ["failing", "paid"]
    await ended(stage)


async def test_where_nothing_can_be_handed_back_deliveries_wait_and_ask() -> None:
    """As with any other dependency: on Kafka what is given up would come again only when its partition moves."""
    provider = Provider()
    stage = stage_of(provider, probing=AT_ONCE, hands_back=False)
    waiting = asyncio.create_task(stage.process(delivery("a")))
    await wait_for(lambda: len(provider.called) > 3, what="the delivery to ask")
    assert stage.empty_hands.most is None
    provider.is_away = False
    assert await waiting
    assert provider.asked == 0


async def test_a_question_that_meets_another_outage_holds_the_stage_for_that() -> None:
    """Then all workers stand still alike, and deliveries wait in hand."""
    provider = Provider()
    stage = stage_of(provider, probing=AT_ONCE)

    async def ask() -> None:
        raise DependencyDown("postgres", "Postgres is away")

    stage.empty_hands.asks = {"llm": ask}
    assert await stage.process(delivery("a")) is False
    await wait_for(lambda: stage.waits_for == "postgres", what="Postgres to be missed")
    assert stage.empty_hands.most is None
    provider.is_away = False
    assert await stage.process(delivery("b"))
    assert stage.held is None


async def test_a_stage_that_stops_asks_nothing_more() -> None:
    """Neither a wait between two questions nor a question without an answer holds up the stop."""
    provider = Provider()
    stage = stage_of(provider)
    assert await stage.process(delivery("a")) is False
    await ended(stage)
    assert provider.asked == 0


async def test_a_question_without_an_answer_ends_with_the_stage() -> None:
    """It is broken off."""
    provider = Provider()
    stage = stage_of(provider, probing=AT_ONCE)
    asked = asyncio.Event()

    async def ask() -> None:
        asked.set()
        await asyncio.Event().wait()

    stage.empty_hands.asks = {"llm": ask}
    assert await stage.process(delivery("a")) is False
    await asked.wait()
    await ended(stage)
