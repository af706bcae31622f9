"""Group commit: what gathers while one batch runs is the next batch."""

import asyncio
from collections.abc import Sequence

import pytest
import structlog

from infra.errors import DependencyDown
from streams.delivery.batching import Batcher


class Transaction:
    """Doubles numbers; remembers the size of each batch; fails a batch that holds a negative number."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.down = False

    async def run(self, numbers: Sequence[int]) -> list[int]:
        self.sizes.append(len(numbers))
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
