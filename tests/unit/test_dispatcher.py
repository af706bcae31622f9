"""Pokes share a look at the line."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from infra.postgres import Database
from streams.delivery.deliveries import Record
from streams.jobs.dispatch import Dispatcher


class Silent:
    """A publisher that nothing is given to."""

    async def publish(self, records: Sequence[Record]) -> None:
        raise AssertionError(records)


class Counting(Dispatcher):
    """Counts its looks at the line, and finds nothing there."""

    def __init__(self, linger: timedelta) -> None:
        database = Database("postgresql://unused", size=1)
        super().__init__(database, Silent(), window=1, linger=linger)
        self.looks = 0
        self.looking = asyncio.Event()

    async def release(self, *, sweep: bool = False) -> int:
        assert not sweep
        self.looks += 1
        self.looking.set()
        await asyncio.sleep(0.01)
        return 0


class Stalling(Counting):
    """Its look waits for a database that stalls."""

    def __init__(self, linger: timedelta) -> None:
        super().__init__(linger)
        self.stall = asyncio.Event()

    async def release(self, *, sweep: bool = False) -> int:
        found = await super().release(sweep=sweep)
        await self.stall.wait()
        return found


async def test_pokes_within_the_linger_share_one_look() -> None:
    """The look comes after the last of them, so none of what they tell of is missed."""
    dispatcher = Counting(timedelta(milliseconds=200))
    for _ in range(3):
        dispatcher.poke()
        await asyncio.sleep(0.01)
    assert dispatcher.looks == 0
    await dispatcher.close()
    assert dispatcher.looks == 1


async def test_a_poke_during_a_look_has_another_one_follow() -> None:
    """With linger and without: what it tells of may have come too late for the first."""
    for linger in (timedelta(), timedelta(milliseconds=20)):
        dispatcher = Counting(linger)
        dispatcher.poke()
        async with asyncio.timeout(5):
            await dispatcher.looking.wait()
        dispatcher.poke()
        await dispatcher.close()
        assert dispatcher.looks == 2


async def test_a_look_that_does_not_end_holds_up_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that stalls keeps a worker from handing back what it has not begun, if its look is waited for."""
    monkeypatch.setattr("streams.jobs.dispatch._LONGEST_CLOSE_S", 0.05)
    dispatcher = Stalling(timedelta())
    dispatcher.poke()
    await asyncio.wait_for(dispatcher.looking.wait(), 5)
    await asyncio.wait_for(dispatcher.close(), 5)
    assert dispatcher.looks == 1
    dispatcher.stall.set()
    await dispatcher.close()


async def test_nothing_is_released_once_it_is_closed() -> None:
    """What was poked before is looked at; a poke after it would release what nobody publishes."""
    dispatcher = Counting(timedelta(milliseconds=20))
    dispatcher.poke()
    await dispatcher.close()
    assert dispatcher.looks == 1
    dispatcher.poke()
    await dispatcher.close()
    assert dispatcher.looks == 1
