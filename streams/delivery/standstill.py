"""A stage stands still while it cannot work, and asks now and then.

A window of failures tells a bad deploy from bad jobs. It holds how recent tries went, over several organizations.

closed ──most recent tries failed, of several organizations──▶ open ──a success──▶ closed

While it is open the stage holds and tries with few deliveries. Each organization counts with its last tries alone and
with each job once, so neither one job's content nor all that one customer sends opens it: it takes two organizations
at least. A flood of unreadable or refused events does not open it either, since those are the events' own fault.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog

from infra.errors import DependencyDown
from streams.delivery.policy import RetryPolicy

log = structlog.get_logger(__name__)

_MOST_ORGANIZATIONS: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Try:
    at: float
    job: object
    failed: bool


@dataclass
class FailureWindow:
    """The outcomes of a stage's recent tries.

    Attributes:
        seconds: how far back it looks at most. Longer: remembers the failures of a quiet stage; shorter: forgets them.
        minimum: failed jobs without which it never opens, so that a few bad jobs on a quiet stage fail as themselves.
            Higher: more of the backlog is spent before a bad deploy is noticed. One organization counts for at most
            half of them.
    """

    seconds: float = 60.0
    minimum: int = 20
    clock: Callable[[], float] = time.monotonic
    is_open: bool = field(default=False, init=False)
    _tries: "OrderedDict[str | None, deque[_Try]]" = field(default_factory=OrderedDict, init=False)

    def succeeded(self, organization: str | None = None, job: object = None) -> None:
        """Note a success. One is enough to close the window; old failures may open it again."""
        self.is_open = False
        self._note(organization, job, failed=False)

    def failed(self, organization: str | None = None, job: object = None) -> bool:
        """Note a failure; return whether the stage should stand still."""
        self._note(organization, job, failed=True)
        since = self.clock() - self.seconds
        tries = [one for recent in self._tries.values() for one in recent if one.at >= since]
        failures = [one for one in tries if one.failed]
        jobs = {one.job for one in failures if one.job is not None}
        unnamed = sum(one.job is None for one in failures)
        if len(jobs) + unnamed >= self.minimum and 2 * len(failures) > len(tries):
            self.is_open = True
        return self.is_open

    def _note(self, organization: str | None, job: object, *, failed: bool) -> None:
        recent = self._tries.setdefault(organization, deque(maxlen=max(1, self.minimum // 2)))
        recent.append(_Try(self.clock(), job, failed))
        self._tries.move_to_end(organization)
        if len(self._tries) > _MOST_ORGANIZATIONS:
            self._tries.popitem(last=False)


# The cap is about the longest that a stage lies idle after its dependency is back.
PROBING: Final = RetryPolicy(max_attempts=1, base=timedelta(seconds=0.2), cap=timedelta(seconds=5))

BUG: Final = "bug"  # what a stage waits for that stands still because of one
SUSPECTED: Final = "stage"  # what it waits for while most of its deliveries fail


@dataclass
class Standstill:
    """One stage's standstill, or none.

    Attributes:
        group: the stage's consumer group.
        probing: how long it waits before it asks again.
        why: why the stage stands still, or None.
        waits_for: which dependency it waits for; `stage` if most deliveries fail; `bug` if something else keeps it from
            working; or None.
        times: how many errors have held the stage so far. What began before the last of them shows nothing.
    """

    group: str
    probing: RetryPolicy = PROBING
    why: str | None = field(default=None, init=False)
    waits_for: str | None = field(default=None, init=False)
    times: int = field(default=0, init=False)
    until_next_probe: timedelta = field(default=timedelta(), init=False)
    _probes: int = field(default=0, init=False, repr=False)
    _now: asyncio.Event = field(default_factory=asyncio.Event, init=False, repr=False)

    def begin(self, error: Exception) -> None:
        """Hold the stage. An outage is expected and says when it is over; anything else is a bug that someone must see.

        While the stage is held already, this is what holds it from now on.
        """
        retry_after = None
        if isinstance(error, DependencyDown):
            if self.why is None:
                log.warning("stage.held", stage=self.group, why=str(error))
            retry_after, self.waits_for = error.retry_after, error.dependency
        else:
            log.error("stage.held", stage=self.group, why=str(error), exc_info=error)
            self.waits_for = BUG
        self.why = f"{type(error).__name__}: {error}"
        self.times += 1
        # Only probes lengthen the wait: hundreds of deliveries may fail at once when the dependency goes away.
        self.until_next_probe = self.probing.delay(self._probes + 1, retry_after)

    def end(self, *, shown: bool) -> None:
        """Let the stage work again.

        Args:
            shown: a delivery has shown that it can. Until then the waits go on growing.
        """
        if self.why is not None:
            log.info("stage.resumed", stage=self.group)
        self.why = self.waits_for = None
        if shown:
            self._probes = 0

    def probed(self) -> None:
        """Count a question whether the stage can work again."""
        self._probes += 1

    def probe_now(self) -> None:
        """End the wait for the next question."""
        self._now.set()

    async def next_probe(self) -> None:
        """Wait until it is time to ask again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.until_next_probe.total_seconds()):
                await self._now.wait()
        self._now.clear()
