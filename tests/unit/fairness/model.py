"""The rule of fair dispatch as plain Python: what the SQL function `dispatch` does, and a fleet to try it on.

docs/fairness.md says the rule in words. The integration tests hold the SQL against this, run by run.
"""

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Final

_KEPT: Final = 0.75  # of an organization's estimate, for each run that ends
_FLEET_KEPT: Final = 0.95
_LEAST_COST: Final = 0.001


@dataclass
class Share:
    """One organization's row."""

    weight: float = 1.0
    most: float = inf
    tag: float = 0.0
    since: int = 0
    waiting: deque[Hashable] = field(default_factory=deque)
    in_flight: int = 0
    capped: bool = False
    cost: float | None = None


class Line:
    """Who waits, and who comes next."""

    def __init__(self) -> None:
        self.shares: dict[str, Share] = {}
        self.virtual = 0.0
        self.cost = 1.0
        self._turns = count(1)
        self._heads: list[tuple[float, int, str]] = []
        self._charged: dict[Hashable, float] = {}

    def set_terms(self, whose: str, *, weight: float = 1.0, most: float = inf) -> None:
        """Give an organization its weight and its cap."""
        share = self.shares.setdefault(whose, Share(tag=self.virtual))
        share.weight, share.most = weight, most

    def arrive(self, whose: str, *runs: Hashable) -> None:
        """Have runs wait, behind those that wait already."""
        share = self.shares.setdefault(whose, Share(tag=self.virtual))
        if not share.waiting:
            share.tag = max(share.tag, self.virtual)
            share.since = next(self._turns)
            share.capped = share.in_flight >= share.most
        share.waiting.extend(runs)
        self._note(whose)

    def cancel(self, whose: str, run: Hashable) -> None:
        """Take a run out that waits."""
        self.shares[whose].waiting.remove(run)

    def end(self, whose: str, run: Hashable, *, seconds: float) -> None:
        """Free the slot of a run that held it for so long."""
        share = self.shares[whose]
        share.in_flight -= 1
        share.tag += seconds / share.weight - self._charged.pop(run)
        if not share.waiting or share.capped:
            share.tag = max(share.tag, self.virtual)
            share.since = next(self._turns)
        share.capped = share.in_flight >= share.most
        known = seconds if share.cost is None else share.cost
        share.cost = max(_LEAST_COST, seconds + (known - seconds) * _KEPT)
        self.cost = max(_LEAST_COST, seconds + (self.cost - seconds) * _FLEET_KEPT)
        self._note(whose)

    def step(self, whose: str) -> float:
        """By how much virtual time a release of this organization's moves it on."""
        share = self.shares[whose]
        return (self.cost if share.cost is None else share.cost) / share.weight

    def release(self) -> tuple[str, Hashable] | None:
        """Release the next run and return whose it is; None if nobody may have one."""
        while self._heads:
            tag, since, whose = heappop(self._heads)
            share = self.shares[whose]
            if (share.tag, share.since) != (tag, since) or not share.waiting or share.capped:
                continue  # the row has changed since, and stands elsewhere in the heap if anywhere
            self.virtual = max(self.virtual, share.tag)
            run = share.waiting.popleft()
            self._charged[run] = self.step(whose)
            share.tag += self._charged[run]
            share.in_flight += 1
            share.capped = share.in_flight >= share.most
            self._note(whose)
            return whose, run
        return None

    def _note(self, whose: str) -> None:
        share = self.shares[whose]
        if share.waiting and not share.capped:
            heappush(self._heads, (share.tag, share.since, whose))


@dataclass(frozen=True)
class Job:
    """What a simulated customer sends: when, for how long it holds a slot, and which of its jobs it is."""

    whose: str
    at: float
    seconds: float
    number: int = 0


@dataclass
class Fleet:
    """So many slots, and what they did."""

    slots: int
    line: Line = field(default_factory=Line)
    started: dict[Job, float] = field(default_factory=dict)
    order: list[Job] = field(default_factory=list)
    # (from, to, whose): slots that were held
    held: list[tuple[float, float, str]] = field(default_factory=list)

    def run(self, jobs: Sequence[Job], *, until: float = inf) -> None:
        """Work on the jobs as they come, each once, until all are done or the time is up."""
        coming = deque(sorted(jobs, key=lambda job: job.at))
        ends: list[tuple[float, int, Job]] = []
        numbers = count()
        free = self.slots
        while coming or ends:
            now = min(coming[0].at if coming else inf, ends[0][0] if ends else inf)
            if now > until:
                return
            while ends and ends[0][0] <= now:
                _, _, job = heappop(ends)
                self.line.end(job.whose, job, seconds=job.seconds)
                free += 1
            while coming and coming[0].at <= now:
                job = coming.popleft()
                self.line.arrive(job.whose, job)
            while free and (released := self.line.release()) is not None:
                job = released[1]  # type: ignore[assignment]  # the line takes anything for a run
                assert isinstance(job, Job)
                assert job not in self.started
                self.started[job] = now
                self.order.append(job)
                self.held.append((now, now + job.seconds, job.whose))
                heappush(ends, (now + job.seconds, next(numbers), job))
                free -= 1

    def share(self, whose: str, since: float, until: float) -> float:
        """Which part of all slots an organization held between two moments."""
        total = sum(max(0.0, min(end, until) - max(start, since)) for start, end, name in self.held if name == whose)
        return total / (self.slots * (until - since))

    def wait(self, job: Job) -> float:
        """How long a job waited for its slot."""
        return self.started[job] - job.at
