"""Group commit: what gathers while one batch runs is the next batch."""

import asyncio
from collections.abc import Sequence

import pytest
import structlog

from infra.errors import DependencyDown
from streams.delivery.batching import Batcher, Linger


class Transaction:
    """Doubles numbers; remembers the size of each batch; fails a batch that holds a negative number."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.begun = asyncio.Event()
        self.down = False

    async def run(self, numbers: Sequence[int]) -> list[int]:
        self.sizes.append(len(numbers))
        self.begun.set()
        await asyncio.sleep(0)
        if self.down:
            raise DependencyDown("postgres", "away")
        if any(number < 0 for number in numbers):
            raise ValueError("negative")
        return [2 * number for number in numbers]


async def test_concurrent_items_share_batches_and_keep_their_results() -> None:
    """A thousand concurrent submissions cost a few batches, and each caller gets its own result."""
    transaction = Transaction()
    batcher = Batcher(transaction.run, max_size=300, timeout_s=5)
    assert await asyncio.gather(*(batcher.submit(number) for number in range(1000))) == list(range(0, 2000, 2))
    assert transaction.sizes == [300, 300, 300, 100]


async def test_a_lone_item_waits_for_nobody() -> None:
    """Without company an item is a batch of its own, at once."""
    transaction = Transaction()
    batcher = Batcher(transaction.run, max_size=300, timeout_s=5)
    assert [await batcher.submit(number) for number in (1, 2)] == [2, 4]
    assert transaction.sizes == [1, 1]


def patient(transaction: Transaction, seconds: float, *, max_size: int = 300, at_once: int = 300) -> Batcher[int, int]:
    """Return a batcher in which nothing but 7 hurries."""
    linger: Linger[int] = Linger(seconds, lambda: at_once, lambda number: number == 7)
    return Batcher(transaction.run, max_size=max_size, timeout_s=5, linger=linger)


async def test_items_that_nobody_waits_for_wait_for_company() -> None:
    """What comes one after the other within that time is one batch."""
    transaction = Transaction()
    batcher = patient(transaction, 0.2)
    first = asyncio.create_task(batcher.submit(1))
    await asyncio.sleep(0.02)
    second = asyncio.create_task(batcher.submit(2))
    await asyncio.sleep(0.02)
    assert transaction.sizes == []
    assert [await first, await second] == [2, 4]
    assert transaction.sizes == [2]


async def test_an_item_in_a_hurry_takes_along_all_that_wait() -> None:
    """It goes at once, before and after others, and none of them is handled after it."""
    transaction = Transaction()
    batcher = patient(transaction, 60)
    async with asyncio.timeout(5):
        for _ in range(2):
            waiting = asyncio.create_task(batcher.submit(1))
            await asyncio.sleep(0.01)
            assert await batcher.submit(7) == 14
            assert await waiting == 2
        assert await batcher.submit(7) == 14
    assert transaction.sizes == [2, 2, 1]


async def test_those_that_wait_go_when_they_are_many() -> None:
    """So no stage takes fewer events a second than it could; what is beyond a batch's size is not left behind."""
    transaction = Transaction()
    async with asyncio.timeout(5):
        batcher = patient(transaction, 60)
        await asyncio.gather(*(batcher.submit(1) for _ in range(20)))
        small = patient(transaction, 60, max_size=8)
        await asyncio.gather(*(small.submit(1) for _ in range(20)))
    assert transaction.sizes == [20, 8, 8, 4]


async def test_none_waits_for_company_that_cannot_come() -> None:
    """A stage that handles one or two at once does not stand still for the rest of the time."""
    async with asyncio.timeout(5):
        for at_once in (1, 2):
            transaction = Transaction()
            batcher = patient(transaction, 60, at_once=at_once)
            for _ in range(2):
                await asyncio.gather(*(batcher.submit(1) for _ in range(at_once)))
            assert transaction.sizes == [at_once, at_once]


async def test_one_that_comes_during_a_batch_waits_for_company_too() -> None:
    """A hurry is over when its batch has begun; what hurries meanwhile is the next batch."""
    transaction = Transaction()
    batcher = patient(transaction, 0.05)
    hurried = asyncio.create_task(batcher.submit(7))
    async with asyncio.timeout(5):
        await transaction.begun.wait()
    late = asyncio.create_task(batcher.submit(1))
    await hurried
    await asyncio.sleep(0.01)
    assert transaction.sizes == [1]
    assert await late == 2
    assert transaction.sizes == [1, 1]


async def test_one_bad_item_fails_alone() -> None:
    """A failed batch is repeated item by item, so that only the offender's caller sees the error."""
    batcher = Batcher(Transaction().run, max_size=300, timeout_s=5)
    results = await asyncio.gather(*(batcher.submit(number) for number in (1, -1, 2)), return_exceptions=True)
    assert results[0] == 2
    assert isinstance(results[1], ValueError)
    assert results[2] == 4


async def test_an_outage_is_told_to_all_at_once() -> None:
    """While a dependency is down a batch is not taken apart into as many useless tries."""
    transaction = Transaction()
    transaction.down = True
    batcher = Batcher(transaction.run, max_size=300, timeout_s=5)
    results = await asyncio.gather(*(batcher.submit(number) for number in range(50)), return_exceptions=True)
    assert all(isinstance(result, DependencyDown) for result in results)
    assert transaction.sizes == [50]


async def test_a_batch_that_hangs_is_ended() -> None:
    """The timeout reaches whoever submitted."""

    async def hang(_items: Sequence[int]) -> list[int]:
        await asyncio.Event().wait()
        return []

    batcher = Batcher(hang, max_size=10, timeout_s=0.01)
    with pytest.raises(TimeoutError):
        await batcher.submit(1)


async def test_a_caller_that_left_does_not_disturb_the_others() -> None:
    """A cancelled submission is skipped; the batch goes on."""
    batcher = Batcher(Transaction().run, max_size=10, timeout_s=5)
    leaving = asyncio.create_task(batcher.submit(1))
    staying = asyncio.create_task(batcher.submit(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == 4


async def test_a_batch_is_nobodys_in_particular() -> None:
    """What is bound to the log lines of the first item is not bound to those of the batch that it shares."""
    seen: list[dict[str, object]] = []

    async def run(numbers: Sequence[int]) -> list[int]:
        seen.append(structlog.contextvars.get_contextvars())
        return list(numbers)

    batcher = Batcher(run, max_size=300, timeout_s=5)
    with structlog.contextvars.bound_contextvars(job_id="first"):
        await batcher.submit(1)
    assert seen == [{}]
