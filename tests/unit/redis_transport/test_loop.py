"""What a background loop does about failures, without a server."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from redis.exceptions import RedisClusterException, ResponseError

from streams.redis.health import Health
from streams.redis.loop import Backoff, Loop, Patience, each


@pytest.mark.parametrize(
    "error",
    [
        ResponseError("READONLY"),
        RedisClusterException("no node"),
        OSError("reset"),
        ValueError("MOVED"),
        TimeoutError(),
    ],
)
async def test_whatever_a_round_raises_is_said_and_waited_for(error: Exception) -> None:
    """A round's failure stays in the loop, shows in `health()` until a round succeeds, and delays the next one."""
    health = Health()
    loop = Loop("fetching", health)
    with loop:
        raise error
    assert health.problems() == [f"fetching fails: {type(error).__name__}: {error}"]
    assert loop.error is error
    assert 0 < loop.wait_s(normally=60.0) <= 2
    with loop:
        pass
    assert health.problems() == []
    assert loop.error is None
    assert loop.wait_s(normally=60.0) == 60.0


def test_waits_grow_to_a_bound() -> None:
    """The first try comes after a moment, and none later than the longest wait."""
    waits = [Backoff(most=1.0).wait() for _ in range(20)]
    assert max(waits) <= 0.05
    backoff = Backoff(most=1.0)
    assert all(0.5 <= wait <= 1.0 for wait in [backoff.wait() for _ in range(30)][5:])


async def test_a_server_that_does_not_wait_is_not_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two early answers are another worker's doing; each after them is waited for, until a read waits again."""
    patience = Patience("of a topic")
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("streams.redis.loop.asyncio.sleep", sleep)

    async def wait_s(*, asked_s: float, took_s: float) -> float:
        waited.clear()
        await patience.after(asked_s=asked_s, took_s=took_s)
        return sum(waited)

    assert [await wait_s(asked_s=1.0, took_s=0.001) > 0.01 for _ in range(4)] == [False, False, True, True]
    assert await wait_s(asked_s=1.0, took_s=0.9) == 0
    assert await wait_s(asked_s=1.0, took_s=0.001) == 0
    assert all([await wait_s(asked_s=0.002, took_s=0.0005) <= 0.0015 for _ in range(9)])


async def test_a_loop_ends_though_its_work_swallowed_the_cancellation() -> None:
    """A client that answers as if it had not been cancelled made its worker's stop wait for ever."""
    loop = Loop("trimming", Health())
    begun = asyncio.Event()

    async def run() -> None:
        while True:
            with loop, suppress(asyncio.CancelledError):
                begun.set()
                await asyncio.sleep(60)

    task = asyncio.create_task(run())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)


async def test_one_that_fails_does_not_keep_the_others_waiting() -> None:
    """The work is done for every item, and the first failure is raised in the end."""
    done = []

    async def work(item: int) -> None:
        done.append(item)
        if item % 2:
            raise ValueError(item)

    with pytest.raises(ValueError, match="1"):
        await each(range(5), work)
    assert done == [0, 1, 2, 3, 4]
