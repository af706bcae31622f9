"""How tests wait: soon at first, seldom later, and never so often that what they wait for has no time."""

import asyncio
from itertools import count
from types import SimpleNamespace

import pytest

from tests import waiting
from tests.waiting import wait_for


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made; they take the time that they say, on a clock that stands still otherwise."""
    made: list[float] = []

    async def sleep(length_s: float) -> None:
        made.append(length_s)

    monkeypatch.setattr(waiting, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: sum(made)))
    return made


async def test_what_comes_soon_is_seen_soon_and_what_comes_late_is_asked_seldom(paused: list[float]) -> None:
    """From 20 ms on the pauses grow with the time that was waited, to a tenth of a second."""
    asked = count()
    await wait_for(lambda: next(asked) == 100, what="the last question")
    assert paused[:5] == [0.02] * 5
    assert paused == sorted(paused)
    assert paused[-1] == 0.1


async def test_a_value_that_never_comes_is_given_up_by_its_deadline(paused: list[float]) -> None:
    """The message has what was seen last."""
    with pytest.raises(AssertionError, match=r"gave up waiting for rain after 3 s; last seen: 0"):
        await wait_for(lambda: 0, deadline_s=3, what="rain")
    assert 3 < sum(paused) <= 3.1 + 1e-9


async def test_a_long_question_leaves_as_much_time_to_others() -> None:
    """Else the answer would be asked for by the same processor that is to give it."""
    ends: list[float] = []
    begins: list[float] = []

    async def question() -> bool:
        begins.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.05)
        ends.append(asyncio.get_running_loop().time())
        return len(ends) == 4

    await wait_for(question, what="four answers")
    assert all(begin - end >= 0.045 for end, begin in zip(ends, begins[1:], strict=False))
