"""A stage with an operator's brake: what is paused waits, nothing is spent, and what was begun ends."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import pytest

from infra.errors import DependencyDown, Postponed
from streams.delivery.brake import Brake, Orders
from streams.delivery.deliveries import ATTEMPT, Delivery
from tests.unit.test_stage import DELIVERY, FACT, Later, Script, Topics, stage_of
from tests.waiting import wait_for

PAUSED = Orders(paused="ann: a bad prompt")


@dataclass(frozen=True)
class Wish:
    """What an event is about, as far as the brake looks at it."""

    organization_id: str


@dataclass(frozen=True)
class Start:
    """An event that brings a run."""

    data: Wish


@pytest.mark.parametrize("handed", [1, 7])
async def test_a_paused_stage_tries_nothing_until_it_is_resumed(handed: int) -> None:
    """However many wait: none is handled and none is scheduled; resumed, each is handled once."""
    script, topics, later, brake = Script(), Topics(), Later(), Brake()
    stage = stage_of(script, topics, later, brake=brake)
    brake.obey(PAUSED)
    waiting = [asyncio.create_task(stage.process(DELIVERY)) for _ in range(handed)]
    await asyncio.sleep(0)
    brake.obey(Orders(paused="bob: still"))  # another reason changes nothing
    await asyncio.sleep(0)
    assert (script.calls, later.kept, brake.running) == (0, [], 0)
    brake.obey(Orders())
    assert await asyncio.gather(*waiting) == [True] * handed
    assert topics.written == [FACT] * handed
    assert brake.running == 0


async def test_a_stopping_worker_hands_back_what_a_pause_keeps() -> None:
    """It is some other worker's then, which is paused too."""
    script, brake = Script(), Brake()
    stage = stage_of(script, Topics(), Later(), brake=brake)
    brake.obey(PAUSED)
    waiting = asyncio.create_task(stage.process(DELIVERY))
    await asyncio.sleep(0)
    stage.waits.stop()
    assert await waiting is False
    assert script.calls == 0


async def test_a_restarted_worker_looks_before_it_tries_anything() -> None:
    """Before the first orders nothing is tried, and if they say so, nothing after them either."""
    script, brake = Script(), Brake(awaits_orders=True)
    stage = stage_of(script, Topics(), Later(), brake=brake)
    waiting = asyncio.create_task(stage.process(DELIVERY))
    await asyncio.sleep(0)
    assert script.calls == 0
    brake.obey(PAUSED)
    await asyncio.sleep(0)
    assert script.calls == 0
    brake.obey(Orders())
    assert await waiting


async def test_orders_that_cannot_be_read_hold_the_stage() -> None:
    """It says what is away, tries nothing, and goes on when they are known. A later outage leaves them in force."""
    script, brake = Script(), Brake(awaits_orders=True)
    stage = stage_of(script, Topics(), Later(), brake=brake)
    brake.orders_unknown(DependencyDown("postgres", "Postgres is away; check DATABASE_URL"))
    waiting = asyncio.create_task(stage.process(DELIVERY))
    await wait_for(lambda: stage.waits_for == "postgres", what="the stage to hold")
    assert "DATABASE_URL" in (stage.held or "")
    assert script.calls == 0
    brake.obey(Orders())
    assert await waiting
    brake.orders_unknown(DependencyDown("postgres", "away again"))
    assert await stage.process(DELIVERY)


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_no_more_are_tried_at_once_than_the_limit(limit: int) -> None:
    """A lowered limit is kept, a raised one used, and all are handled in the end."""
    brake, running, most, go_on = Brake(), 0, 0, asyncio.Event()

    async def handle(_event: object, _delivery: Delivery) -> tuple[()]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go_on.wait()
        running -= 1
        return ()

    stage = stage_of(Script(), Topics(), Later(), brake=brake, handle=handle)
    brake.obey(Orders(limit=limit))
    waiting = [asyncio.create_task(stage.process(DELIVERY)) for _ in range(8)]
    await wait_for(lambda: running == limit, what="as many as may to be tried")
    go_on.set()
    assert all(await asyncio.gather(*waiting))
    assert most == limit
    go_on.clear()
    waiting = [asyncio.create_task(stage.process(DELIVERY)) for _ in range(8)]
    await wait_for(lambda: running == limit, what="as many as may to be tried")
    brake.obey(Orders())
    await wait_for(lambda: running == len(waiting), what="all to be tried")
    go_on.set()
    assert all(await asyncio.gather(*waiting))


async def test_what_a_try_came_to_is_made_durable_though_paused() -> None:
    """A paid answer is not kept in memory for as long as a pause lasts: only what was not tried waits."""
    script, topics, brake = Script(), Topics(away=2), Brake()
    stage = stage_of(script, topics, Later(), brake=brake)
    waiting = asyncio.create_task(stage.process(DELIVERY))
    await wait_for(lambda: script.calls == 1, what="the try")
    brake.obey(PAUSED)
    assert await waiting
    assert (script.calls, topics.written) == (1, [FACT])


async def test_a_held_stage_does_not_probe_while_it_is_paused() -> None:
    """Asking costs a call too. Resumed, it asks again."""
    script, brake = Script([DependencyDown("llm", "away")]), Brake()
    stage = stage_of(script, Topics(), Later(), brake=brake)
    hold = stage.handle

    async def handle(event: bytes | None, delivery: Delivery) -> object:
        if script.errors:
            brake.obey(PAUSED)
        return await hold(event, delivery)

    stage.handle = handle  # type: ignore[assignment]  # as the script's own
    waiting = asyncio.create_task(stage.process(DELIVERY))
    await wait_for(lambda: stage.waits_for == "llm", what="the hold")
    for _ in range(20):
        await asyncio.sleep(0)
    assert script.calls == 1
    brake.obey(Orders())
    assert await waiting
    assert script.calls == 2


async def test_a_held_stage_is_told_to_ask_at_once() -> None:
    """A gate that an operator opens is not waited for until its time."""
    script = Script([DependencyDown("llm", "closed", retry_after=timedelta(hours=1))])
    stage = stage_of(script, Topics(), Later())
    waiting = asyncio.create_task(stage.process(DELIVERY))
    await wait_for(lambda: stage.held is not None, what="the hold")
    stage.standstill.probe_now()
    assert await waiting


@pytest.mark.parametrize(("ends_in_s", "delay_s"), [(None, 60), (7200.0, 60), (20.0, 20), (0.1, 1)])
async def test_runs_of_a_paused_organization_wait_outside(ends_in_s: float | None, delay_s: float) -> None:
    """What starts a run of theirs is kept as the same attempt; others, and what ends a run, are handled."""
    later, topics = Later(), Topics()
    brake = Brake("quota", starts=Start, aside=timedelta(minutes=1))
    events = {b"theirs": Start(Wish("acme")), b"others": Start(Wish("birch")), b"fact": Wish("acme")}

    async def handle(_event: object, _delivery: Delivery) -> tuple[object, ...]:
        return (FACT,)

    stage = stage_of(Script(), topics, later, brake=brake, handle=handle, decode=lambda one: events[one.value])
    brake.obey(Orders(organizations={"acme": ends_in_s}))
    for value in events:
        assert await stage.process(Delivery("job-requests", b"key", value, {ATTEMPT: b"2"}))
    [(kept, delay)] = later.kept
    assert (kept.value, kept.headers[ATTEMPT], delay) == (b"theirs", b"2", timedelta(seconds=delay_s))
    assert len(topics.written) == 2
    with pytest.raises(Postponed, match=r"^quota is paused for acme"):
        brake.check(events[b"theirs"])
