"""Group commit: many deliveries that are handled at once share one transaction.

Faust's `stream.take` acknowledges its whole buffer in a `finally`, also when the body was cancelled half-way
(faust/streams.py, `take_events`), and adds its `within` to every quiet moment. Here each agent keeps its own delivery
and its own acknowledgement, and the batch is whatever has gathered while the one before it ran: no waiting when the
stream is quiet, large batches when it is not.

An item without a caller who waits may wait for company (`Linger`): at tens of jobs a second a batch of one costs as
much as one of ten. Nothing is acknowledged or written meanwhile. If the process dies then, the broker delivers again.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar

from infra import tracing
from infra.errors import DependencyDown

T = TypeVar("T")
R = TypeVar("R")

# So many share what a batch costs well enough; waiting for more would bound what the stage takes in a second.
_COMPANY: Final = 20

# What was submitted, where its result goes, and the span that it was submitted in.
_Item: TypeAlias = tuple[T, "asyncio.Future[R]", "tracing.Context | None"]


@dataclass(frozen=True, slots=True)
class Linger(Generic[T]):
    """Items wait for company so long, unless one of them is in a hurry.

    Attributes:
        seconds: longest an item waits before its batch begins.
        at_once: how many may be submitted at once now. When so many wait, no other can come.
        hurries: whether an item is waited for. It takes along all that wait.
    """

    seconds: float
    at_once: Callable[[], int]
    hurries: Callable[[T], bool]

    def is_over(self, waiting: int, newest: T) -> bool:
        """Return whether those that wait go now, of which the newest has just come."""
        return waiting >= min(_COMPANY, self.at_once()) or self.hurries(newest)


class Batcher(Generic[T, R]):
    """Runs submitted items in batches, one batch at a time.

    Args:
        run: handles a batch and returns one result per item, in order. It must be safe to repeat.
        max_size: items in one batch at most.
        timeout_s: longest one batch may take.
        name: what traces call it; that of `run` if None.
        looks_up: whether `run` only looks something up; see `infra.tracing.batch`.
        linger: how long items wait for company; None: not at all.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        max_size: int,
        timeout_s: float,
        name: str | None = None,
        looks_up: bool = False,
        linger: Linger[T] | None = None,
    ) -> None:
        self._run = run
        self._name = getattr(run, "__qualname__", "") if name is None else name
        self._looks_up = looks_up
        self._max_size = max_size
        self._timeout_s = timeout_s
        self._linger = linger
        self._enough = asyncio.Event()
        self._waiting: deque[_Item[T, R]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def submit(self, item: T) -> R:
        """Return the item's result.

        Raises:
            Exception: what `run` raised for this item. A batch that fails is repeated in halves, so that one bad
                item fails alone, unless a dependency is down: then all are told at once.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future, tracing.here()))
        if self._linger is not None and self._linger.is_over(len(self._waiting), item):
            self._enough.set()
        if self._runner is None:
            # In a context of its own: what is bound to the log lines of this item is not bound to the others'.
            self._runner = asyncio.create_task(self._drain(), context=Context())
        return await future

    async def _drain(self) -> None:
        try:
            while self._waiting:
                if self._linger is not None:
                    await self._gather(self._linger.seconds)
                await asyncio.sleep(0)  # let the other agents that were just handed a delivery join in
                size = min(self._max_size, len(self._waiting))
                if size == len(self._waiting):
                    self._enough.clear()
                await self._run_batch([self._waiting.popleft() for _ in range(size)])
        finally:
            self._runner = None

    async def _gather(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._enough.wait()

    async def _run_batch(self, batch: "list[_Item[T, R]]") -> None:
        live = [one for one in batch if not one[1].done()]
        if not live:
            return
        try:
            with tracing.batch(self._name, [one[2] for one in live], looks_up=self._looks_up):
                async with asyncio.timeout(self._timeout_s):
                    results = await self._run([item for item, *_ in live])
        except DependencyDown as error:
            _fail(live, error)
        except Exception as error:  # noqa: BLE001 - handed to whoever submitted the item
            if len(live) == 1:
                _fail(live, error)
                return
            half = len(live) // 2
            await self._run_batch(live[:half])
            await self._run_batch(live[half:])
        else:
            for (_, future, _), result in zip(live, results, strict=True):
                if not future.done():
                    future.set_result(result)


def _fail(batch: "Sequence[_Item[T, R]]", error: Exception) -> None:
    for _, future, _ in batch:
        if not future.done():
            future.set_exception(error)
