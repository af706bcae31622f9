"""The agent: many deliveries at once, each acknowledged by itself, and none begun that has no place."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from streams.delivery.agent import agent_of
from streams.delivery.deliveries import Delivery
from streams.delivery.stage import Stage
from tests.waiting import wait_for


class Events:
    """A stream whose events know whether they were taken and acknowledged."""

    def __init__(self, number: int) -> None:
        self.taken: list[str] = []
        self.acknowledged: list[str] = []
        self.unacked: set[str] = set()
        self._names = [f"1-{number}" for number in range(number)]

    def noack(self) -> "Events":
        return self

    async def events(self) -> AsyncIterator[Any]:
        consumer = SimpleNamespace(entry_of=lambda message: message.name, unacked=_Unacked(self.unacked))
        for name in self._names:
            self.taken.append(name)
            self.unacked.add(name)
            message = SimpleNamespace(topic="orders", key=b"k", value=b"v", headers={}, timestamp=None, name=name)
            yield SimpleNamespace(
                message=message, app=SimpleNamespace(consumer=consumer), ack=lambda name=name: self._acknowledge(name)
            )
        await asyncio.Event().wait()

    def _acknowledge(self, name: str) -> None:
        self.acknowledged.append(name)
        self.unacked.discard(name)


@dataclass
class _Unacked:
    names: set[str]

    def discard(self, message: Any) -> None:
        self.names.discard(message.name)


@dataclass
class Doing:
    """A stage whose deliveries end when the test says how."""

    under_way: dict[str, "asyncio.Future[bool]"] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)

    async def process(self, delivery: Delivery) -> bool:
        assert delivery.entry is not None
        outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.under_way[delivery.entry] = outcome
        try:
            return await outcome
        except asyncio.CancelledError:
            self.stopped.append(delivery.entry)
            raise
        finally:
            del self.under_way[delivery.entry]


def started(doing: Doing, events: Events, *, at_once: int) -> asyncio.Task[None]:
    """Begin an agent's work."""
    consume = agent_of(cast("Stage[Any]", doing), at_once=at_once)
    return asyncio.create_task(cast("Any", consume(cast("Any", events))))


async def ended(task: asyncio.Task[None]) -> BaseException | None:
    """Return how a task has ended."""
    await asyncio.wait([task])
    return asyncio.CancelledError() if task.cancelled() else task.exception()


async def test_no_more_are_taken_than_there_are_places() -> None:
    """What is taken counts as begun, and would be kept from other workers; the next is taken when a place is free."""
    doing, events = Doing(), Events(5)
    agent = started(doing, events, at_once=3)
    await wait_for(lambda: len(doing.under_way) == 3, what="three under way")
    assert events.taken == ["1-0", "1-1", "1-2"]
    doing.under_way["1-1"].set_result(True)
    await wait_for(lambda: "1-3" in doing.under_way, what="the next")
    assert events.acknowledged == ["1-1"]
    assert events.taken == ["1-0", "1-1", "1-2", "1-3"]
    agent.cancel()
    await ended(agent)


async def test_what_has_no_outcome_is_handed_back() -> None:
    """A stage that stops while it is held gives a delivery up: it is neither acknowledged nor waited for."""
    doing, events = Doing(), Events(2)
    agent = started(doing, events, at_once=2)
    await wait_for(lambda: len(doing.under_way) == 2, what="two under way")
    doing.under_way["1-0"].set_result(False)
    await wait_for(lambda: events.unacked == {"1-1"}, what="that it is handed back")
    assert events.acknowledged == []
    agent.cancel()
    await ended(agent)


async def test_an_agent_that_is_stopped_stops_all_that_it_has_begun() -> None:
    """It ends only when they have, and acknowledges none of them."""
    doing, events = Doing(), Events(3)
    agent = started(doing, events, at_once=3)
    await wait_for(lambda: len(doing.under_way) == 3, what="three under way")
    agent.cancel()
    assert isinstance(await ended(agent), asyncio.CancelledError)
    assert sorted(doing.stopped) == ["1-0", "1-1", "1-2"]
    assert events.acknowledged == []


@pytest.mark.parametrize("is_stopping", [False, True])
async def test_an_error_that_leaves_the_stage_restarts_the_agent_unless_it_stops(is_stopping: bool) -> None:
    """Faust starts an agent again that fails; one that is being stopped must end as cancelled."""
    doing, events = Doing(), Events(2)
    agent = started(doing, events, at_once=2)
    await wait_for(lambda: len(doing.under_way) == 2, what="two under way")
    doing.under_way["1-0"].set_exception(RuntimeError("a bug"))
    if is_stopping:
        agent.cancel()
    error = await ended(agent)
    assert isinstance(error, asyncio.CancelledError if is_stopping else ExceptionGroup)
    assert doing.stopped == ["1-1"]
    assert events.acknowledged == []
