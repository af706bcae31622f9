"""What live pages cost: one reading for all who look at the same, and none when nobody does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from infra.api.console import require_loopback
from infra.console.live import Board, Shared
from infra.errors import DependencyDown, InvalidSetting
from tests.waiting import wait_for


class Page:
    """A page that counts how often it is read."""

    def __init__(self) -> None:
        self.reads = 0
        self.text = "first"
        self.down = self.bug = False

    async def read(self) -> str:
        self.reads += 1
        if self.down:
            raise DependencyDown("postgres", "away")
        if self.bug:
            raise KeyError("a field that a template has not")
        return self.text


@pytest.fixture
async def board() -> AsyncIterator[Board]:
    """A board that reads without a pause worth waiting for."""
    board = Board(every_s=0.01, pause_s=0)
    yield board
    await board.close()


async def test_fifty_who_look_at_one_page_cost_what_one_does(board: Board) -> None:
    """The page is read in turns, not by each of them; all see the same, and each change once."""
    page = Page()
    streams = [board.follow("overview", page.read, patience_s=10) for _ in range(50)]
    assert set(await asyncio.gather(*(anext(one) for one in streams))) == {"first"}
    assert page.reads <= 2
    page.text = "second"
    assert set(await asyncio.gather(*(anext(one) for one in streams))) == {"second"}
    for one in streams:
        await one.aclose()
    seen = page.reads
    await asyncio.sleep(0.1)
    assert page.reads <= seen + 1


async def test_a_page_that_does_not_change_is_not_sent_again(board: Board) -> None:
    """Who waits long hears that the stream lives, and nothing else."""
    page = Page()
    async with aclosing(board.follow("jobs", page.read, patience_s=0.05)) as stream:
        assert await anext(stream) == "first"
        assert await anext(stream) is None
        assert page.reads > 1


async def test_streams_end_when_the_process_does(board: Board) -> None:
    """Browsers come back, and find another process."""
    page = Page()
    streams = [board.follow("jobs", page.read, patience_s=60) for _ in range(3)]
    for stream in streams:
        assert await anext(stream) == "first"
    waiting = [asyncio.ensure_future(anext(stream, "over")) for stream in streams]
    await asyncio.sleep(0)
    board.end()
    assert await asyncio.gather(*waiting) == ["over"] * 3


async def test_a_page_outlives_an_outage(board: Board) -> None:
    """While Postgres is away a page stays as it was, and goes on by itself."""
    page = Page()
    async with aclosing(board.follow("jobs", page.read, patience_s=10)) as stream:
        assert await anext(stream) == "first"
        page.down, reads = True, page.reads
        await wait_for(lambda: page.reads > reads + 2, what="readings in vain")
        page.down, page.text = False, "second"
        assert await anext(stream) == "second"


async def test_a_bug_of_one_page_leaves_the_others_live(board: Board) -> None:
    """One that cannot be rendered stays as it was; it ended the reading of every page that was looked at."""
    bad, good = Page(), Page()
    async with (
        aclosing(board.follow("bad", bad.read, patience_s=10)) as one,
        aclosing(board.follow("good", good.read, patience_s=10)) as other,
    ):
        assert (await anext(one), await anext(other)) == ("first", "first")
        bad.bug, good.text = True, "second"
        assert await anext(other) == "second"
        bad.bug, bad.text = False, "second"
        assert await anext(one) == "second"


async def test_what_is_shared_is_read_once_for_all_who_ask_at_once() -> None:
    """And again when it is old."""
    page = Page()
    shared = Shared(page.read, for_s=60)
    assert set(await asyncio.gather(*(shared.get() for _ in range(50)))) == {"first"}
    assert page.reads == 1
    fresh = Shared(page.read, for_s=0)
    await fresh.get()
    await asyncio.sleep(0.001)
    await fresh.get()
    assert page.reads == 3


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_without_a_key_the_console_listens_on_this_machine(host: str) -> None:
    """Its links are printed here, and nobody else can use one."""
    require_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "console.example", "", "localhost.example"])  # noqa: S104 - refused
def test_without_a_key_it_refuses_every_other_address(host: str) -> None:
    """The error names the variable that is missing."""
    with pytest.raises(InvalidSetting, match="TEAMFIT_SIGNING_KEY is not set"):
        require_loopback(host)
