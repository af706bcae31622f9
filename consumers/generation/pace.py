"""Calls keep within an endpoint's limits: the fleet shares one budget by the minute.

A worker leases for its waiting calls from a row of Postgres, in one statement for all of them, and hands out in their
order. It leases whole calls, a request and the estimated tokens of each: parts of calls would gather in the workers,
and be used all at once in a minute that they were not meant for. A call takes its estimate before its attempt begins,
and settles with what it has used.

If the process dies with a lease, the budget misses it until it has filled up again, a second or so later: after the
very first call, whose cost is not known, as long as the most that it may cost takes.
"""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import aiosql

from consumers.generation.allowance import Limits
from infra.errors import DependencyDown, Postponed
from infra.postgres import Database

_queries = aiosql.from_path(Path(__file__).with_name("pace.sql"), "asyncpg")

# A bucket holds this part of a minute's limit, or one call, and fills so fast that both together are so much of it: no
# minute has more, wherever it begins. A larger part forgives a late worker more, a smaller one uses more.
_PART: Final = 0.02
_WHOLE: Final = 0.99
# How much the latest call counts in the average that the next is estimated by.
_LATEST: Final = 0.1
_SHORTEST_SLEEP_S: Final = 0.02
_LONGEST_SLEEP_S: Final = 1.0
_MINUTE: Final = timedelta(minutes=1)
# A longer queue lets fewer moments pass unused, a shorter one keeps less in the worker that others could overtake.
# Shorter waits are no reason that a customer would ask for, and would be as many writes as calls.
_WORTH_NOTING_S: Final = 0.5
_QUEUE_S: Final = 10.0
_COMES_BACK: Final = (0.3, 0.8)


@dataclass(slots=True)
class Taken:
    """One call has taken this from the budget.

    Attributes:
        tokens: its estimate.
        used: what it has cost; None while that is unknown.
        called: whether it may have been made.
    """

    tokens: float
    used: float | None = None
    called: bool = False


class Pacer:
    """One endpoint's budget, as this worker has it.

    Args:
        database: keeps the budget.
        endpoint: as the fleet names it.
        model: which one is asked.
        limits: what the endpoint takes by the minute, as far as this worker knows now.
        most_tokens: the estimate while no call has been answered yet.
        patience: how long a call waits in the worker.
        minute: how long the provider's minute is; a test's may be shorter.
    """

    def __init__(
        self,
        database: Database,
        *,
        endpoint: str,
        model: str,
        limits: Callable[[], Limits],
        most_tokens: int,
        patience: timedelta,
        minute: timedelta = _MINUTE,
    ) -> None:
        self._database = database
        self._row = {"endpoint": endpoint, "model": model}
        self._limits = limits
        self._most_tokens = float(most_tokens)
        self._patience = patience
        self._minute_s = minute.total_seconds()
        self._call_s: float | None = None
        self._usual: float | None = None
        self._calls = 0  # leased, and not handed out yet
        self._each = 0.0  # the tokens of each
        self._unused = 0.0  # tokens that go back with the next lease; negative: that calls have used beyond
        self._waiting: deque[tuple[Taken, asyncio.Future[None]]] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._is_open = False

    @property
    def wait(self) -> timedelta:
        """Return how long a call that comes now would wait, about."""
        limits, calls = self._limits(), len(self._waiting)
        minutes = max(
            calls / limits.requests if limits.requests else 0.0,
            calls * self._estimate / limits.tokens if limits.tokens else 0.0,
        )
        return timedelta(seconds=min(minutes, 60.0) * self._minute_s)

    @property
    def room(self) -> int | None:
        """Return for how many runs at once the limits have room; None: any number.

        Those that wait a moment are included. More would only stand here in the order in which they came.
        """
        limits = self._limits()
        by_the_minute = [limits.requests] if limits.requests else []
        if limits.tokens:
            by_the_minute.append(limits.tokens / self._estimate)
        if not by_the_minute or self._call_s is None:
            return None
        return math.ceil(min(by_the_minute) * (self._call_s + _QUEUE_S) / self._minute_s) + 1

    @asynccontextmanager
    async def turn(self, note: Callable[[timedelta], Awaitable[None]]) -> AsyncIterator[Taken]:
        """Wait until a call fits into the budget, and settle when it has ended. Without a limit nothing waits.

        Args:
            note: called with how long it has waited, when that is more than a moment or goes on outside the worker.

        Raises:
            Postponed: it would wait for long, which it does outside the worker.
            DependencyDown: Postgres is away.
        """
        if not self._limits().is_known:
            taken = Taken(0.0)
            yield taken
            self._learn(taken)
            return
        taken = await self._take(note)
        began = time.monotonic()
        try:
            yield taken
        finally:
            if taken.called:
                took_s = time.monotonic() - began
                self._call_s = took_s if self._call_s is None else self._call_s + _LATEST * (took_s - self._call_s)
            self._settle(taken)

    async def close(self) -> None:
        """End what is waited for."""
        if self._pump is not None:
            self._pump.cancel()
            with suppress(asyncio.CancelledError):
                await self._pump

    @property
    def _estimate(self) -> float:
        return self._usual or self._most_tokens

    def _no_room(self) -> Postponed:
        # Back before those that wait here are through, so that the budget is never left unused.
        delay = self._patience * random.uniform(*_COMES_BACK)
        return Postponed("the LLM endpoint's limits leave no room yet (teamfit llm endpoints)", delay=delay)

    async def _take(self, note: Callable[[timedelta], Awaitable[None]]) -> Taken:
        if self.wait > self._patience:
            await note(timedelta())
            raise self._no_room()
        taken = Taken(0.0)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = taken, future
        self._waiting.append(waiter)
        self._start()
        try:
            async with asyncio.timeout(self._patience.total_seconds()):
                await asyncio.wait({future}, timeout=_WORTH_NOTING_S)
                if not future.done():
                    await note(timedelta(seconds=_WORTH_NOTING_S))
                await future
        except TimeoutError:
            if future.done() and not future.cancelled():
                future.result()
                return taken
            raise self._no_room() from None
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._settle(taken)
            raise
        finally:
            with suppress(ValueError):
                self._waiting.remove(waiter)
        return taken

    def _settle(self, taken: Taken) -> None:
        """Give back what the call has not used; what it has used beyond is missing for the next."""
        if not taken.called:
            self._calls += 1
            self._unused += taken.tokens - self._each
        elif taken.used is not None and self._limits().tokens:
            self._unused += taken.tokens - taken.used
        self._learn(taken)
        self._hand_out()
        if not self._waiting and (self._calls or abs(self._unused) > self._estimate):
            self._start()

    def _learn(self, taken: Taken) -> None:
        if taken.used:
            self._usual = taken.used if self._usual is None else self._usual + _LATEST * (taken.used - self._usual)

    def _hand_out(self) -> None:
        while self._waiting and self._calls:
            taken, future = self._waiting.popleft()
            if not future.done():
                self._calls -= 1
                taken.tokens = self._each
                future.set_result(None)

    def _start(self) -> None:
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._lease_what_is_needed())

    async def _lease_what_is_needed(self) -> None:
        try:
            while True:
                await asyncio.sleep(0)  # let the others that were just handed a delivery join in
                await self._lease()
                self._hand_out()
                if not self._waiting:
                    return
                await asyncio.sleep(self._pause_s())
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            while self._waiting:
                _, future = self._waiting.popleft()
                if not future.done():
                    future.set_exception(error)

    async def _lease(self) -> None:
        """Ask for as many calls as wait; return what no call here needs."""
        limits = self._limits()
        spare = 0 if self._waiting else self._calls
        unused, back = self._unused, self._unused + spare * self._each
        self._calls, self._unused = self._calls - spare, 0.0
        try:
            async with self._database.transaction() as connection:
                if not self._is_open:
                    await _queries.open(connection, **self._row)
                row = await _queries.lease(
                    connection,
                    **self._row,
                    requests_per_minute=limits.requests,
                    tokens_per_minute=limits.tokens,
                    calls=max(len(self._waiting) - self._calls, 0),
                    most_tokens=self._most_tokens,
                    unused_requests=spare,
                    unused_tokens=back,
                    tokens_per_call=self._usual,
                    part=_PART,
                    whole=_WHOLE,
                    minute=self._minute_s,
                )
        except DependencyDown:
            self._calls, self._unused = self._calls + spare, self._unused + unused
            raise
        self._is_open = row is not None
        if row is not None:
            # Those left of an earlier lease, should there be some, have its estimate: the difference goes back.
            self._unused += self._calls * (self._each - row["each"])
            self._calls, self._each = self._calls + row["calls"], row["each"]
            self._usual = self._usual or row["tokens_per_call"]

    def _pause_s(self) -> float:
        """Return when a bucket is a quarter fuller.

        Sooner would find little, later would let it run over what a call less than whole leaves in it.
        """
        return min(max(_PART * self._minute_s / 4, _SHORTEST_SLEEP_S), _LONGEST_SLEEP_S)
